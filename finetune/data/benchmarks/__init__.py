"""Domain benchmarks, each a format with a name: `find` for folders, `adapt` for rows, `BENCHMARKS` for all of them."""

from finetune.data.benchmarks.banking77 import BANKING77
from finetune.data.benchmarks.benchmark import Benchmark, Split
from finetune.data.benchmarks.clinc import CLINC
from finetune.data.benchmarks.finding import Found, adapt, find
from finetune.data.benchmarks.gsm8k import GSM8K
from finetune.data.benchmarks.hh_rlhf import HH_RLHF
from finetune.data.benchmarks.humaneval import HUMANEVAL
from finetune.data.benchmarks.legalbench import LEGALBENCH
from finetune.data.benchmarks.mbpp import MBPP
from finetune.data.benchmarks.medmcqa import MEDMCQA
from finetune.data.benchmarks.medquad import MEDQUAD
from finetune.data.benchmarks.mmlu import MMLU
from finetune.data.benchmarks.mts_dialog import MTS_DIALOG
from finetune.data.benchmarks.pubmedqa import PUBMEDQA
from finetune.data.benchmarks.self_instruct import SELF_INSTRUCT
from finetune.data.benchmarks.sgd import SGD
from finetune.data.benchmarks.spider import SPIDER
from finetune.data.benchmarks.tatqa import TATQA

BENCHMARKS: tuple[Benchmark, ...] = (
    PUBMEDQA,
    MEDMCQA,
    MEDQUAD,
    MTS_DIALOG,
    MMLU,
    TATQA,
    BANKING77,
    CLINC,
    LEGALBENCH,
    SPIDER,
    GSM8K,
    MBPP,
    HUMANEVAL,
    SGD,
    HH_RLHF,
    SELF_INSTRUCT,
)
"""In the order in which `auto` tries them."""

__all__ = ["BENCHMARKS", "Benchmark", "Found", "Split", "adapt", "find"]
