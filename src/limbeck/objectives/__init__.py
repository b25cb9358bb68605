"""One file a method: its class, defaults, formula, paper. To add one, add a file; nothing else is touched."""

from limbeck.objectives.ab import AB
from limbeck.objectives.afd import AFD
from limbeck.objectives.algebra import WeightedSum
from limbeck.objectives.at import AT
from limbeck.objectives.base import InitialStage, Objective, Paper
from limbeck.objectives.bss import BSS
from limbeck.objectives.cc import CC
from limbeck.objectives.ce import CE
from limbeck.objectives.ckd import CKD
from limbeck.objectives.companions import Adapted, Branches, Peers
from limbeck.objectives.contrastive import Contrastive
from limbeck.objectives.crd import CRD
from limbeck.objectives.dist import DIST
from limbeck.objectives.dkd import DKD
from limbeck.objectives.dml import DML
from limbeck.objectives.documents import Documents
from limbeck.objectives.embed_match import EmbedMatch
from limbeck.objectives.fitnet import FitNet
from limbeck.objectives.fsp import FSP
from limbeck.objectives.ft import FT
from limbeck.objectives.icd import ICD
from limbeck.objectives.infoflow import InfoFlow
from limbeck.objectives.itrd import ITRD
from limbeck.objectives.jsd import JSD
from limbeck.objectives.kd import KD
from limbeck.objectives.kl import KL
from limbeck.objectives.listwise_kl import ListwiseKL
from limbeck.objectives.lskd import LSKD
from limbeck.objectives.margin_mse import MarginMSE
from limbeck.objectives.mlkd import MLKD
from limbeck.objectives.nst import NST
from limbeck.objectives.ofd import OFD
from limbeck.objectives.okd import OKD
from limbeck.objectives.one import ONE
from limbeck.objectives.pkt import PKT
from limbeck.objectives.r2kd import R2KD
from limbeck.objectives.registry import objective_class, objectives, parse_objective, presets
from limbeck.objectives.reviewkd import ReviewKD
from limbeck.objectives.rkd import RKD
from limbeck.objectives.rrd import RRD
from limbeck.objectives.rtk import RTK
from limbeck.objectives.schedules import After, Decay, Ramp, Schedule, Until
from limbeck.objectives.semckd import SemCKD
from limbeck.objectives.simkd import SimKD
from limbeck.objectives.skewed import Skewed
from limbeck.objectives.sp import SP
from limbeck.objectives.srrl import SRRL
from limbeck.objectives.tvd import TVD
from limbeck.objectives.uld import ULD
from limbeck.objectives.vid import VID
from limbeck.objectives.wsld import WSLD

__all__ = [
    "AB",
    "AFD",
    "AT",
    "BSS",
    "CC",
    "CE",
    "CKD",
    "CRD",
    "DIST",
    "DKD",
    "DML",
    "FSP",
    "FT",
    "ICD",
    "ITRD",
    "JSD",
    "KD",
    "KL",
    "LSKD",
    "MLKD",
    "NST",
    "OFD",
    "OKD",
    "ONE",
    "PKT",
    "R2KD",
    "RKD",
    "RRD",
    "RTK",
    "SP",
    "SRRL",
    "TVD",
    "ULD",
    "VID",
    "WSLD",
    "Adapted",
    "After",
    "Branches",
    "Contrastive",
    "Decay",
    "Documents",
    "EmbedMatch",
    "FitNet",
    "InfoFlow",
    "InitialStage",
    "ListwiseKL",
    "MarginMSE",
    "Objective",
    "Paper",
    "Peers",
    "Ramp",
    "ReviewKD",
    "Schedule",
    "SemCKD",
    "SimKD",
    "Skewed",
    "Until",
    "WeightedSum",
    "objective_class",
    "objectives",
    "parse_objective",
    "presets",
]
