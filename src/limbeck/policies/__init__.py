"""Text policies: which text teacher and student both see.

>>> from limbeck.policies import parse_policy
>>> print(parse_policy("mixed(speculative(top_k=5, block='auto'), fixed, share=0.7)"))
mixed(speculative(top_k=5, block='auto'), fixed, share=0.7)
"""

from limbeck.policies.base import Policy
from limbeck.policies.block import BlockChooser
from limbeck.policies.draw import Draw, Stream
from limbeck.policies.engine import Engine, Wish, Written
from limbeck.policies.fixed import Fixed
from limbeck.policies.generation import generate
from limbeck.policies.mixtures import Mixed, TwoStage
from limbeck.policies.prompts import Prompts, Response, Source, Statistics
from limbeck.policies.registry import POLICIES, parse_policy
from limbeck.policies.sampled import StudentText, TeacherText
from limbeck.policies.sampling import Sampling, parse_sampling
from limbeck.policies.speculation import speculate
from limbeck.policies.speculative import Speculative
from limbeck.policies.writer import Writer

__all__ = [
    "POLICIES",
    "BlockChooser",
    "Draw",
    "Engine",
    "Fixed",
    "Mixed",
    "Policy",
    "Prompts",
    "Response",
    "Sampling",
    "Source",
    "Speculative",
    "Statistics",
    "Stream",
    "StudentText",
    "TeacherText",
    "TwoStage",
    "Wish",
    "Writer",
    "Written",
    "generate",
    "parse_policy",
    "parse_sampling",
    "speculate",
]
