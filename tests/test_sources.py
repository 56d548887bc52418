"""How the code is kept: what ruff can't check, over everything that the project keeps."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
SOURCE: Final = ROOT / "src" / "sleap_rtc"
MAX_LINES: Final = 700

# Files that may write to standard output, and why.
SPEAKING: Final = {
    "cli/output.py": "everything that a command says goes through it",
    "engines/tiny/words.py": "a program of its own, which speaks with the worker so",
}

# Source files that a test file of another name tests: small parts that only work together, shells
# that need real processes around them, and declarations that the tests of messages make and read.
TESTED_BY: Final = {
    "__main__.py": "endtoend/test_demo.py",
    "cli/care_documents.py": "cli/test_documents.py",
    "cli/import_documents.py": "cli/test_documents.py",
    "cli/imports.py": "cli/test_importing.py",
    "cli/job_documents.py": "cli/test_documents.py",
    "cli/keep_documents.py": "cli/test_documents.py",
    "cli/machine_documents.py": "cli/test_documents.py",
    "cli/model_documents.py": "cli/test_documents.py",
    "cli/moving.py": "endtoend/test_moving.py",
    "cli/moving_documents.py": "cli/test_documents.py",
    "cli/registry.py": "cli/test_keeping.py",
    "cli/commands.py": "cli/test_main.py",
    "cli/cleaning.py": "cli/test_clean.py",
    "cli/demo.py": "endtoend/test_demo.py",
    "cli/repairing.py": "cli/test_repair.py",
    "cli/sending.py": "cli/test_whole_job.py",
    "cli/room_documents.py": "cli/test_documents.py",
    "cli/storage_documents.py": "cli/test_documents.py",
    "cli/sync.py": "endtoend/test_library.py",
    "cli/syncing.py": "endtoend/test_library.py",
    "cli/table.py": "cli/test_main.py",
    "cli/taken_over.py": "cli/test_keeping.py",
    "cli/transferring.py": "cli/test_transfers.py",
    "client/api.py": "endtoend/test_training.py",
    "client/api_jobs.py": "endtoend/test_training.py",
    "client/api_models.py": "client/test_shipping.py",
    "client/api_rooms.py": "endtoend/test_admission.py",
    "client/following.py": "endtoend/test_training.py",
    "client/rooms.py": "endtoend/test_admission.py",
    "client/tending.py": "client/test_online.py",
    "demo/steps.py": "endtoend/test_demo.py",
    "engines/base.py": "engines/tiny/test_engine.py",
    "engines/sleap_nn/places.py": "engines/sleap_nn/test_environment.py",
    "engines/sleap_nn/schema.py": "engines/sleap_nn/test_allowlist.py",
    "engines/tiny/__main__.py": "engines/tiny/test_training.py",
    "engines/tiny/samples.py": "engines/tiny/test_training.py",
    "engines/tiny/track.py": "engines/tiny/test_training.py",
    "engines/tiny/train.py": "engines/tiny/test_training.py",
    "engines/tiny/words.py": "engines/tiny/test_training.py",
    "jobs/events.py": "protocol/test_link_messages.py",
    "jobs/spec.py": "protocol/test_link_messages.py",
    "library/importing/taking.py": "library/importing/test_importer.py",
    "library/inspection/content.py": "library/inspection/test_formats.py",
    "library/inspection/hdf5.py": "library/inspection/test_formats.py",
    "library/inspection/onnx.py": "library/inspection/test_formats.py",
    "library/inspection/pickles.py": "library/inspection/test_formats.py",
    "library/inspection/tensors.py": "library/inspection/test_formats.py",
    "library/inspection/zips.py": "library/inspection/test_formats.py",
    "library/search/conditions.py": "library/search/test_parser.py",
    "library/unpacking.py": "library/test_backup.py",
    "media/readers.py": "media/test_synthetic.py",
    "net/events.py": "net/test_signaling.py",
    "net/exchange.py": "net/test_http.py",
    "net/sign_in.py": "net/test_signaling.py",
    "protocol/datasets.py": "protocol/test_link_messages.py",
    "protocol/handshake.py": "protocol/test_handshake_messages.py",
    "protocol/http.py": "server/test_api.py",
    "protocol/link.py": "protocol/test_link_messages.py",
    "protocol/signed.py": "auth/test_signed.py",
    "server/asgi.py": "server/test_app.py",
    "server/responses.py": "server/test_api.py",
    "server/upload_table.py": "server/test_storage_desk.py",
    "server/doubt_table.py": "server/test_doubt_desk.py",
    "server/hub.py": "server/test_connection.py",
    "server/metrics.py": "server/test_app.py",
    "server/requests.py": "server/test_connection.py",
    "storage/remote.py": "server/test_uploading.py",
    "testing/engine_conformance.py": "engines/tiny/test_engine.py",
    "testing/handshakes.py": "auth/test_handshake.py",
    "testing/lab.py": "server/test_app.py",
    "testing/model_files.py": "library/inspection/test_formats.py",
    "testing/server.py": "server/test_app.py",
    "testing/seaweed.py": "storage/test_s3.py",
    "testing/store_conformance.py": "storage/test_folder.py",
    "testing/store_endpoint.py": "storage/test_folder.py",
    "transfer/events.py": "transfer/test_machine.py",
    "transports/connection.py": "transports/test_link.py",
    "transports/direct/fetching.py": "transports/direct/test_lanes.py",
    "transports/direct/lane.py": "transports/direct/test_lanes.py",
    "transports/direct/serving.py": "transports/direct/test_lanes.py",
    "transports/direct/wire.py": "transports/direct/test_lanes.py",
    "transports/receiving.py": "transports/test_fetch.py",
    "worker/daemon.py": "endtoend/test_kills.py",
    "worker/runner/__main__.py": "worker/runner/test_runner.py",
    "worker/runner/attempts.py": "worker/runner/test_recovery.py",
    "worker/runner/client.py": "worker/runner/test_runner.py",
    "worker/runner/conductor.py": "worker/runner/test_runner.py",
    "worker/runner/keeping.py": "worker/runner/test_runner.py",
    "worker/runner/link.py": "worker/runner/test_runner.py",
    "worker/runner/messages.py": "worker/runner/test_runner.py",
    "worker/runner/plan.py": "worker/runner/test_recovery.py",
    "worker/runner/process.py": "worker/runner/test_runner.py",
    "worker/runner/records.py": "worker/runner/test_runner.py",
    "worker/runner/supervisor.py": "worker/runner/test_runner.py",
    "worker/runner/tracking.py": "worker/runner/test_tiny.py",
    "worker/runner/training.py": "worker/runner/test_runner.py",
}


def git(*arguments: str) -> list[str]:
    """The lines that git prints about this checkout; skips where there is none."""
    # A checkout may belong to another user, as in a container.
    command = ["git", "-c", "safe.directory=*", *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if done.returncode:
        pytest.skip(f"this is no checkout: {done.stderr.strip()}")
    return done.stdout.splitlines()


def kept_files() -> list[Path]:
    """Every file that git keeps or would keep."""
    names = git("ls-files", "--cached", "--others", "--exclude-standard")
    return [path for name in names if (path := ROOT / name).is_file()]


def python_files() -> list[Path]:
    """Every Python file of the project."""
    folders = ("src", "tests", "tools", "bench")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def source_files() -> list[Path]:
    """Every Python file of the product."""
    return sorted(SOURCE.rglob("*.py"))


def shown(paths: Iterator[Path] | list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def places(pattern: str, paths: list[Path]) -> list[str]:
    """Where a pattern occurs, as ``file:line: text``."""
    found = []
    for path in paths:
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if re.search(pattern, line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    return found


def test_files_are_short() -> None:
    assert len(source_files()) > 50
    long = [path for path in python_files() if path.read_text("utf-8").count("\n") > MAX_LINES]
    assert shown(long) == []


def test_only_the_output_layer_prints() -> None:
    printing = []
    for path in source_files():
        if str(path.relative_to(SOURCE)) in SPEAKING:
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
        printing += [
            f"{path.relative_to(ROOT)}:{call.lineno}"
            for call in calls
            if ast.unparse(call.func) in ("print", "sys.stdout.write")
        ]
    assert printing == []


def test_nothing_is_left_to_be_done() -> None:
    # Written so that this line isn't one itself.
    assert places(r"\b(T[O]DO|F[I]XME|X[X]X)\b", kept_files()) == []


def broad_handlers(tree: ast.AST) -> Iterator[ast.ExceptHandler]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            names = "" if node.type is None else ast.unparse(node.type)
            if node.type is None or re.search(r"\b(Base)?Exception\b", names):
                yield node


def raises_on_every_way(body: list[ast.stmt]) -> bool:
    """Whether the statements end in a raise, so that nothing is swallowed."""
    last = body[-1]
    if isinstance(last, ast.If):
        return bool(last.orelse) and all(raises_on_every_way(b) for b in (last.body, last.orelse))
    return isinstance(last, ast.Raise)


def test_what_swallows_every_error_says_why() -> None:
    silent = []
    for path in python_files():
        text = path.read_text("utf-8")
        lines = text.splitlines()
        for handler in broad_handlers(ast.parse(text)):
            said = re.search(r"# noqa: BLE001 - \w", lines[handler.lineno - 1])
            if not said and not raises_on_every_way(handler.body):
                silent.append(f"{path.relative_to(ROOT)}:{handler.lineno}")
    assert silent == []


def test_what_the_linter_is_told_to_skip_is_named() -> None:
    bare = r"#\s*noqa(?!: [A-Z]+\d+)|#\s*type:\s*ignore(?!\[)"
    assert places(bare, source_files()) == []


def test_no_file_knows_a_machine() -> None:
    # The checkout's own place, and where this machine gets its packages from.
    pattern = "|".join([re.escape(str(ROOT)), r"/w[o]rk/", r"p[y]pi\.org", r"python[h]osted\.org"])
    assert places(pattern, kept_files()) == []
    assert places(r"[\"'`(]/(tmp|var/tmp|home)/", source_files()) == []


def test_every_source_file_has_a_test_file() -> None:
    lacking = []
    for path in source_files():
        name = path.relative_to(SOURCE)
        tree = ast.parse(path.read_text("utf-8"))
        code = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        if name.name == "__init__.py" and not code:
            continue
        usual = f"{name.parent.as_posix()}/test_{name.stem.strip('_')}.py"
        if not (ROOT / "tests" / TESTED_BY.get(name.as_posix(), usual)).exists():
            lacking.append(str(name))
    assert lacking == []


def test_what_is_said_of_tests_is_true() -> None:
    gone = [name for name in TESTED_BY if not (SOURCE / name).exists()]
    named = [SOURCE / name for name in TESTED_BY]
    usual = [p.parent.relative_to(SOURCE) / f"test_{p.stem.strip('_')}.py" for p in named]
    needless = [str(path) for path in usual if (ROOT / "tests" / path).exists()]
    assert (gone, needless) == ([], [])


def test_commit_messages_have_one_form() -> None:
    spec = importlib.util.spec_from_file_location("message", ROOT / "tools" / "message.py")
    assert spec is not None
    assert spec.loader is not None
    message = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(message)
    assert message.fault("fix(net): the client waits longer each time") == ""
    for bad in ("fix: no scope", "Fix(net): capital", "fix(net): ends in a dot.", "fix(net) x"):
        assert message.fault(bad)
    summaries = git("log", "--no-merges", "--format=%s")
    assert [summary for summary in summaries if message.fault(summary)] == []
