"""The report's words about a run: how to make it again, and what each format is worth."""

from infra.report import figures
from infra.report.page import StageView, rendered
from infra.report.shape import QuantizationLine, ReportFacts
from infra.report.writing import quantization_rows, reproduce
from infra.runs import RunRecord


def record(**arguments: object) -> RunRecord:
    return RunRecord(run="mine-1", recipe="mine", began=0.0, git="c0ffee", config={}, arguments=arguments)


def test_the_command_that_makes_a_run_again_names_its_file_and_its_changes() -> None:
    changed = record(recipe_name="my recipes/mine.yaml", overrides=("sft.epochs=2", "sft.method=lora"))
    assert reproduce(changed).splitlines() == [
        "git checkout c0ffee", "make setup", "./slipway run 'my recipes/mine.yaml' sft.epochs=2 sft.method=lora",
    ]  # fmt: skip
    assert reproduce(record()).endswith("./slipway run mine")


ROW = {
    "bytes": 2e6, "perplexity": 4.0, "delta": 0.01, "kl_divergence": 0.002, "top1_agreement": 0.98, "memory_bytes": 5e6,
    "tokens_per_second": 12345.6, "accuracy": 0.75, "accuracy_p": 0.5, "reason": "larger than q4_0", "shipped": False,
}  # fmt: skip
REFUSED = dict.fromkeys(ROW) | {"format": "q4_0", "bytes": 1e6, "shipped": False, "reason": "llama.cpp cannot load it"}


def page_of(*rows: dict[str, object]) -> str:
    card = {"formats": list(rows), "problems": 24}
    stage = StageView("quantize", "quantize", "", {}, {}, {}, card, {})
    lines = tuple(QuantizationLine(**row) for row in quantization_rows([stage]))  # type: ignore[arg-type]
    facts = ReportFacts(
        run="r", recipe="r", flow="f", started="2026-01-01T00:00:00", seconds=1.0, stages=(), scores=(),
        quantization=lines, prompts=(), endpoint=None, environment={}, git=None, cards={},
    )  # fmt: skip
    return rendered(facts, "", [stage], "")


def test_the_table_of_formats_shows_every_measure_and_why_one_does_not_ship() -> None:
    page = page_of({"format": "f16", **ROW}, REFUSED, {"format": "q8_0", **ROW, "shipped": True, "fallbacks": 3})
    for shown in ("5 MB", "12,346", "+1%", "0.002", "98.0%", "75.0%", "llama.cpp cannot load it", "ships</span>"):
        assert shown in page, shown
    assert page.count("3 matrices in other types") == 1


def test_the_picture_of_formats_leaves_out_what_was_not_read_and_what_fell_apart() -> None:
    lines = [QuantizationLine(format=name, **ROW) for name in ("f16", "q8_0")]
    lines += [
        QuantizationLine(format="q4_0", **{**ROW, "delta": 1e40}),
        QuantizationLine(**REFUSED | {"format": "nf4"}),
    ]
    picture = figures.sizes(lines)
    assert picture.count(">f16<") == picture.count(">q8_0<") == 2
    assert ">q4_0<" not in picture and ">nf4<" not in picture
