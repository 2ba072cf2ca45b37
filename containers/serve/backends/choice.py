"""Which engine answers for a bundle."""

import shutil

from containers.contract import StageError
from containers.serve.bundle import Served
from containers.serve.contract import ServeConfig
from containers.serve.jobs import Backend


def load_backend(served: Served, config: ServeConfig, context: int) -> Backend:
    """Return the engine that `config` names with the bundle's model loaded; raises StageError where it cannot."""
    is_gguf = served.gguf is not None
    name = config.engine
    if name == "auto":
        name = "llama.cpp" if is_gguf else "transformers"
    if name != "llama.cpp" and served.adapters:
        raise StageError(
            f"serve.engine is {name}, and this bundle keeps adapters ({', '.join(served.adapters)}) beside its "
            "weights, which llama.cpp alone serves here: choose it, or package one whole model "
            "(`package.adapters=merged`)"
        )
    if (name == "llama.cpp") != is_gguf:
        form, others = ("gguf", "llama.cpp") if is_gguf else ("safetensors", "vllm, sglang, tensorrt-llm, transformers")
        raise StageError(
            f"serve.engine is {name}, and this bundle holds {form}, which {others} can serve: choose one of them, "
            "or another format with `quantize.ship`"
        )
    if name == "llama.cpp":
        from containers.serve.backends.llama_cpp import LlamaCpp

        return LlamaCpp(served, config, context)
    if name == "transformers":
        try:
            from containers.serve.backends.plain import Plain

            return Plain(served)
        except ModuleNotFoundError as error:
            raise StageError(f"{error.name} is not here: install the bundle's env/python/requirements.txt") from error
    from containers.serve.backends.command import Command
    from containers.serve.backends.programs import PROGRAMS

    program = config.engine_program or shutil.which(PROGRAMS[name].executable)
    if program is None:
        raise StageError(
            f"{name} is not here: install it in an environment of its own and name its program, for example "
            f"`serve.engine_program=/opt/{name}/bin/{PROGRAMS[name].executable}`"
        )
    return Command(PROGRAMS[name], program, served, config, context)
