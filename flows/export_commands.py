"""`slipway export`: a model carried out of the store, for other engines and other machines."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Carry a model out of the store, for other engines and other machines.")

Bundle = Annotated[str, typer.Argument(help="An address in the store (package-...); `latest`: the newest run's.")]
Folder = Annotated[Path, typer.Argument(help="The folder to write; it must be new or empty.")]


@app.command()
def bento(bundle: Bundle, folder: Folder) -> None:
    """Copy a bundle with its signature in it: `bentoml serve` serves it anywhere, without Slipway."""
    from flows.exporting import export_bento

    export_bento(bundle, folder)


@app.command()
def ollama(bundle: Bundle, folder: Folder) -> None:
    """Write the weights and a Modelfile whose template and stops are those that the model was trained with."""
    from flows.exporting import export_ollama

    export_ollama(bundle, folder)


@app.command()
def image(
    bundle: Bundle,
    name: Annotated[str, typer.Option("--name", help="The image's name; slipway-<model>:<version> by default.")] = "",
) -> None:
    """Build an image that serves a bundle read-only and not as root (needs a Docker engine with BuildKit)."""
    from flows.exporting import export_image

    export_image(bundle, name)


@app.command()
def hf(
    model: Annotated[str, typer.Argument(help="A bundle's address (its 16-bit model is meant), or a model's.")],
    folder: Folder,
) -> None:
    """Write a folder that Hugging Face transformers loads: safetensors, tokenizer, chat template, card."""
    from flows.exporting import export_hugging_face

    export_hugging_face(model, folder)
