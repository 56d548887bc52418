"""Every format is known by its content, cuts are found, and nothing that could run is missed."""

from __future__ import annotations

import contextlib
import io
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sleap_rtc.errors import DataError, UnsafePath
from sleap_rtc.library.inspection.formats import look

FORMATS = {
    "best.ckpt": ("lightning", "scanned"),
    "torch.pt": ("torch", "scanned"),
    "old.pt": ("torch-old", "scanned"),
    "model.safetensors": ("safetensors", "safe"),
    "model.gguf": ("gguf", "safe"),
    "model.onnx": ("onnx", "safe"),
    "model.keras": ("keras", "safe"),
    "best.npz": ("npz", "safe"),
    "best_model.h5": ("hdf5", "safe"),
    "latest.h5": ("hdf5", "safe"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_file_is_known_by_its_content(whole, written, tmp_path, name):
    found = look(written(name, whole(tmp_path)[name]))
    assert (found.format, found.tier) == FORMATS[name]
    assert found.sentence == ""
    assert found.weights


@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_is_found_at_every_offset(whole, written, tmp_path, name):
    content = whole(tmp_path)[name]
    step = max(len(content) // 150, 1)
    path = written(name, content)
    for length in {*range(0, len(content), step), *range(len(content) - 20, len(content))}:
        path.write_bytes(content[:length])
        with pytest.raises(DataError):
            assert look(path) is None, f"after {length} of {len(content)} bytes"


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_any_bytes_give_an_answer_or_an_error(whole, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    made = whole(folder)
    name = data.draw(st.sampled_from(sorted(made)))
    content = bytearray(made[name])
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + 1] = data.draw(st.binary(max_size=9))
        if not content:
            break
    if data.draw(st.booleans()):
        content = bytearray(data.draw(st.binary(max_size=300)))
    path = folder / name
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        found = look(path)
        assert found.tier in ("safe", "scanned", "unknown", "flagged")
        assert (found.sentence == "") == (found.tier in ("safe", "scanned"))


def test_the_epoch_of_a_checkpoint_is_read(samples, written):
    assert look(written("best.ckpt", samples.torch_zip())).epoch == 4


class Runs:
    """Unpickling this runs a command."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return (exec, (f"open({str(self.witness)!r}, 'w')",))


@pytest.mark.parametrize("make", ["torch_zip", "old_torch", "torch_pickle"])
def test_what_would_run_is_named_and_not_run(samples, written, tmp_path, make):
    witness = tmp_path / "witness"
    tensors = {"a": samples.Storage("0", 40), "b": samples.Storage("1", 9, "LongStorage")}
    found = look(written("x.pt", getattr(samples, make)({"t": tensors, "x": Runs(witness)})))
    assert found.tier == "flagged"
    assert "exec" in found.sentence
    assert not witness.exists()


def test_a_second_pickle_can_not_hide_behind_the_first_ones_memo(samples, written):
    """The texts of the first pickle must not stand in for those of the second."""
    harmless = pickle.dumps(("collections", "OrderedDict"), protocol=4)
    evil = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940h\x00h\x01\x93."
    found = look(written("x.pkl", harmless + evil))
    assert found.tier == "flagged"
    parts = [
        samples.torch_pickle(0x1950A86A20F9469CFC6C),
        harmless,
        harmless,
        evil,
        samples.torch_pickle([]),
    ]
    found = look(written("x.pt", b"".join(parts)))
    assert found.tier == "flagged"
    assert "posix.system" in found.sentence


def test_a_name_by_number_is_strange(written):
    found = look(written("x.pkl", b"\x80\x02\x82\x01" + b"]" * 20 + b"."))
    assert found.tier == "flagged"
    assert "by number" in found.sentence


def test_a_tensor_that_is_missing_or_short_is_found(samples, written):
    with pytest.raises(DataError, match="missing"):
        look(written("a.pt", samples.torch_zip(sizes=(160,))))
    with pytest.raises(DataError, match="too short"):
        look(written("a.pt", samples.torch_zip(sizes=(159, 72))))


@pytest.mark.parametrize("spelled", ["Lambda", "\\u004cambda", "Lambd\\u0061"])
@pytest.mark.parametrize("kind", ["keras", "hdf5"])
def test_code_in_a_keras_model_is_found(samples, written, tmp_path, kind, spelled):
    if kind == "keras":
        content, name = samples.keras("Lambda"), "m.keras"
        stream = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
            for each in old.namelist():
                new.writestr(each, old.read(each).replace(b"Lambda", spelled.encode()))
        content = stream.getvalue()
    else:
        content, name = samples.hdf5(tmp_path / "l.h5", "XXXXXX"), "m.h5"
        content = content.replace(b'"XXXXXX"', f'"{spelled}"'.encode())
    found = look(written(name, content))
    assert found.tier == "flagged"
    assert "Lambda" in found.sentence


def test_objects_in_an_array_are_found(samples, written):
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    assert look(written("m.npz", samples.npz(header))).tier == "flagged"


def test_torchscript_is_a_program(samples, written):
    stream = io.BytesIO(samples.torch_zip())
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("best/code/__torch__.py", "def f(): ...")
    found = look(written("m.pt", stream.getvalue()))
    assert found.tier == "flagged"
    assert "TorchScript" in found.sentence


def test_what_its_name_denies_is_not_safe(samples, written):
    """A GGUF can be a pickle as well; whoever goes by the name would load it."""
    for content in (samples.gguf(), samples.safetensors(), samples.onnx()):
        found = look(written("best.ckpt", content))
        assert found.tier == "unknown"
        assert "by its content" in found.sentence


@pytest.mark.parametrize(
    ("start", "why"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"/annex/objects/SHA256E-s1--0\n", "git-annex"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"", "empty"),
        (b"PK\x03\x04", "4 bytes"),
    ],
)
def test_what_only_stands_for_a_file_is_told_apart(written, start, why):
    with pytest.raises(DataError, match=why):
        look(written("best.ckpt", start))


def test_a_link_and_a_folder_are_refused(samples, written, tmp_path):
    written("a.pt", samples.torch_zip())
    (tmp_path / "link.pt").symlink_to("a.pt")
    (tmp_path / "folder.pt").mkdir()
    for name in ("link.pt", "folder.pt"):
        with pytest.raises(UnsafePath):
            look(tmp_path / name)


def test_weights_beside_an_onnx_file_are_named(samples, written):
    assert look(written("m.onnx", samples.onnx(beside="w.bin"))).beside == ("w.bin",)


def test_other_archives_and_unknown_bytes_are_unknown(written):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert look(written("a.bin", stream.getvalue())).format == "zip"
    found = look(written("b.bin", b"nothing that anybody knows"))
    assert (found.format, found.tier) == ("unknown", "unknown")


def test_a_data_file_is_no_model(written, tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    path = tmp_path / "analysis.h5"
    with h5py.File(path, "w") as out:
        out["tracks"] = [1.0, 2.0]
    assert not look(path).weights


def odd_zip(samples, change):
    """A checkpoint's archive, changed."""
    stream = io.BytesIO(samples.torch_zip())
    with zipfile.ZipFile(stream, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the name that is there twice
        change(archive)
    return stream.getvalue()


def test_archives_that_two_programs_could_read_in_two_ways_are_refused(samples, written):
    whole = samples.torch_zip()
    twice = odd_zip(samples, lambda archive: archive.writestr("best/data.pkl", b"."))
    packed = odd_zip(samples, lambda a: a.writestr("best/x", b"x" * 99, zipfile.ZIP_BZIP2))
    encrypted = bytearray(whole)
    encrypted[whole.find(b"PK\x01\x02") + 8] |= 1
    for content, why in (
        (twice, "one name"),
        (packed, "packed in an unknown way"),
        (bytes(encrypted), "encrypted"),
        (whole + b"more", "follows"),
        (samples.torch_zip() + whole, "before|overlap|read"),
        (b"PK\x03\x04" + bytes(20) + b"PK\x05\x06" + bytes(18), "empty"),
    ):
        with pytest.raises(DataError, match=why):
            look(written("best.ckpt", content))


def test_a_directory_that_claims_to_be_huge_is_not_read(samples, written):
    content = bytearray(samples.torch_zip())
    end = content.rfind(b"PK\x05\x06")
    content[end + 12 : end + 16] = (1 << 30).to_bytes(4, "little")
    with pytest.raises(DataError, match="too many members"):
        look(written("best.ckpt", bytes(content)))
    content[end + 12 : end + 16] = b"\xff" * 4
    with pytest.raises(DataError, match="can't be read"):
        look(written("best.ckpt", bytes(content)))


def test_a_pickle_that_unpacks_to_gigabytes_is_not_read(written):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("best/data.pkl", b"\x80\x02" + b"N0" * (20 << 20) + b"N.")
    with pytest.raises(DataError, match="too large"):
        look(written("best.ckpt", stream.getvalue()))
