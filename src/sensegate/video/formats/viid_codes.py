"""Code tables of GA/T 1400.3 besides those of `video.codes`, and the object kinds of a body."""

from __future__ import annotations

from typing import Final

from sensegate.video.observation import ObjectClass

COUNTING: Final = frozenset({14, 15})
"""EventSort values of counts rather than events."""

STATES: Final[dict[str, bool]] = {"1": True, "2": False}
"""StatusType -> online; 9 is unknown."""
TOLLGATE_USES: Final = frozenset({"80", "81", "82"})
FUNCTIONS: Final[dict[str, str]] = {
    "1": "vehicle",
    "2": "person",
    "3": "mini",
    "4": "feature",
    "5": "common",
    "6": "high_altitude",
    "99": "other",
}
"""FunctionType; several are separated by `/`."""
CLASSES: Final[dict[str, ObjectClass]] = {
    "MotorVehicle": ObjectClass.VEHICLE,
    "NonMotorVehicle": ObjectClass.NONMOTOR,
    "Person": ObjectClass.PERSON,
    "Face": ObjectClass.FACE,
    "Thing": ObjectClass.THING,
    "Scene": ObjectClass.SCENE,
}
SUBTYPES: Final[dict[str, str]] = {
    "Person": "01",
    "MotorVehicle": "02",
    "NonMotorVehicle": "03",
    "Thing": "04",
    "Scene": "05",
    "Face": "06",
    "VideoLabel": "07",
}
"""Kind -> digits 42 and 43 of its id."""
BASIC: Final[dict[str, str]] = {"VideoSlice": "01", "Image": "02", "File": "03"}
"""Kind -> digits 21 and 22 of its id."""
CATALOGUE: Final = ("APE", "APS", "Tollgate", "Lane")
DETAILS: Final[dict[str, str]] = {
    "3": "APE",
    "4": "APEStatus",
    "7": "Tollgate",
    "9": "Lane",
    "11": "Person",
    "12": "Face",
    "13": "MotorVehicle",
    "14": "NonMotorVehicle",
    "15": "Thing",
    "16": "File",
}
"""SubscribeDetail -> kind of object."""
STATUS_WORDS: Final[dict[int, str]] = {
    0: "OK",
    1: "OtherError",
    2: "Device Busy",
    3: "Device Error",
    4: "Invalid Operation",
    5: "Invalid XML Format",
    6: "Invalid XML Content",
    7: "Invalid JSON Format",
    8: "Invalid JSON Content",
    9: "Reboot",
}
