"""What model files say of themselves, read without running or loading any of it.

=============  =========================================================
module         reads
=============  =========================================================
``content``    bytes of a file, never past its end
``formats``    which format a file has, by its content; is it whole; may it run something
``tensors``    safetensors and GGUF
``hdf5``       HDF5, as Keras and SLEAP up to 1.4 write it
``onnx``       ONNX, and the files that it keeps its weights in
``zips``       zip archives: PyTorch, Keras, numpy
``pickles``    pickles, instruction by instruction
``scanning``   the same for whoever is about to load a checkpoint
``configs``    YAML and JSON, with bounds
``profiles``   training configurations of sleap-nn and of SLEAP up to 1.4
``logs``       training logs and metrics
=============  =========================================================

Whatever bytes a file has, there is an answer or a
:class:`~sleap_rtc.errors.DataError`, after a bounded time and with bounded memory.
"""
