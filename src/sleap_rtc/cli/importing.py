"""``import-model``: models that lie about on this machine become models of the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sleap_rtc.cli.app import App
from sleap_rtc.cli.options import ANY_PATH, yes

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("paths", type=ANY_PATH, nargs=-1, required=True, metavar="PATH...")
@click.option("--alias", metavar="ALIAS", help="What to call it; by default as its folder.")
@click.option(
    "--type", "model_type", metavar="TYPE", help="As centroid, where no configuration tells it."
)
@click.option("--copy", is_flag=True, help="Copy the files into the library, instead of linking.")
@click.option("--recursive", is_flag=True, help="Import every model in folders below.")
@click.option("--trust", is_flag=True, help="Import files that could run something; recorded.")
@yes
@click.pass_obj
def import_model(app: App, /, paths: tuple[Path, ...], yes: bool, **wishes: object) -> None:
    """Import models into this machine's library.

    A PATH is a model's folder, a file of weights (.ckpt .h5 .onnx .pt .pth
    .safetensors .keras .bin .gguf), or an archive (.zip .tar .tar.gz). With
    --recursive it is a folder of such folders, a whole models/ tree for example.

    Nothing is copied: the library links to the files where they are, and writes
    nothing there. Nothing in them is run; a file that could run something when it is
    loaded is refused, and said. What is in the library already is not added again.
    """
    from sleap_rtc.cli.imports import import_all  # noqa: PLC0415 - --help stays quick

    import_all(app, paths, yes=yes, **wishes)
