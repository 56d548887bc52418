"""Label files and pictures: check labels, make a data set, draw and measure predictions.

``labels`` needs h5py to say more than whether a file is HDF5; the rest is the extra ``media``.
"""
