"""Show which tokens training would be marked on, with sft's own code and without the weights.

Run by hand on a stage folder:  python -m containers.entrypoint FOLDER
"""

from containers.certify.contract import CertifyConfig, CertifyInputs, CertifyOutputs
from containers.formats import ChatFormat
from containers.out import Out
from containers.sft.certificate import broken_in, proved
from containers.sft.lessons import read_lessons


def run(config: CertifyConfig, inputs: CertifyInputs, out: Out) -> CertifyOutputs:
    """Write the certificate, whether it holds or not; raises StageError when no conversation has a trained token."""
    chat = ChatFormat.load(inputs.base.path)
    lessons = read_lessons(inputs.instructions, "train", chat, config.max_length)
    record = proved(lessons, chat, inputs, out)
    out.write_card(**record)
    out.record(trained_share=record["trained_tokens"] / record["tokens"])
    counts = {name: record[name] for name in CertifyOutputs.model_fields if name != "broken"}
    return CertifyOutputs(broken=tuple(broken_in(record)), **counts)
