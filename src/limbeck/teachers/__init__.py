"""Where the teacher's Signals come from."""

from limbeck.teachers._codecs import parse_codec
from limbeck.teachers._identity import Identity, identify
from limbeck.teachers._writing import write_cache
from limbeck.teachers.cache import CachePlan, TeacherCache, find_cache, plan_cache, spot_check
from limbeck.teachers.cached import AskedOnceTeacher, CachedTeacher
from limbeck.teachers.check import check_above_chance
from limbeck.teachers.combined import CombinedTeacher
from limbeck.teachers.frozen import FrozenTeacher, NoTeacher, Teacher
from limbeck.teachers.mixed import MixedTargets

__all__ = [
    "AskedOnceTeacher",
    "CachePlan",
    "CachedTeacher",
    "CombinedTeacher",
    "FrozenTeacher",
    "Identity",
    "MixedTargets",
    "NoTeacher",
    "Teacher",
    "TeacherCache",
    "check_above_chance",
    "find_cache",
    "identify",
    "parse_codec",
    "plan_cache",
    "spot_check",
    "write_cache",
]
