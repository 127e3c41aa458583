"""GA/T 1400 bodies with every field that chapter 2.10 of the knowledge file names, for the canary test."""

from __future__ import annotations

import json
from typing import Any, Final

CAMERA: Final = "44010600001190000001"
ABOVE: Final = "44000000005030000001"
_TIME = "20260115133000"
_SOURCE = f"{CAMERA}02{_TIME}00001"
_IMAGE = {
    "ImageID": _SOURCE, "EventSort": 16, "DeviceID": CAMERA, "StoragePath": "/a.jpg", "Type": "14",
    "FileFormat": "Jpeg", "ShotTime": _TIME, "Width": 1920, "Height": 1080, "Data": "AAAA",
    "FeatureInfoObject": {"Vendor": "v", "AlgorithmVersion": "1", "FeatureData": "AAAA"},
}  # fmt: skip
_COMMON: dict[str, Any] = {
    "InfoKind": 1, "SourceID": _SOURCE, "DeviceID": CAMERA, "LeftTopX": 100, "LeftTopY": 100, "RightBtmX": 500,
    "RightBtmY": 500, "SubImageList": {"SubImageInfoObject": [_IMAGE]},
}  # fmt: skip
_PERSON_FIELDS = """
IDType IDNumber Name UsedName Alias EthicCode NationalityCode NativeCityCode ResidenceAdminDivision
ChineseAccentCode PersonOrg JobCategory AccompanyNumber SkinColor HairStyle HairColor FaceStyle FacialFeature
PhysicalFeature RespiratorColor CapStyle CapColor GlassStyle GlassColor PassportType ImmigrantTypeCode
IsSuspectedTerrorist SuspectedTerroristNumber IsCriminalInvolved EscapedCriminalNumber IsDetainees IsVictim
VictimType IsSuspiciousPerson Similaritydegree CoatColor CoatLength TrousersColor GenderCode
"""
_PERSON = dict.fromkeys(
    _PERSON_FIELDS.split(),
    "1",
)
_TIMES = dict.fromkeys(
    ["LocationMarkTime", "FaceAppearTime", "FaceDisAppearTime", "PersonAppearTime", "PersonDisAppearTime", "ShotTime"],
    _TIME,
)
_VEHICLE: dict[str, Any] = {
    "TollgateID": CAMERA, "PassTime": _TIME, "LaneNo": 1, "HasPlate": "1", "PlateClass": "02", "PlateColor": "5",
    "PlateNo": "粤B12345", "PlateNoAttach": "粤B12345", "PlateDescribe": "x", "Speed": 36, "Direction": "1",
    "VehicleClass": "K33", "VehicleBrand": "1", "VehicleModel": "x", "VehicleColor": "1", "VehicleColorDepth": "1",
    "VehicleBodyDesc": "x", "NumOfPassenger": 1, "DrivingStatusCode": "1", "SafetyBelt": 1, "Calling": 1,
    "PlateReliability": "90", "StorageUrl1": "http://x/1.jpg", "StorageUrl5": "http://x/5.jpg", "AppearTime": _TIME,
    "DisappearTime": _TIME, "MarkTime": _TIME, "NameOfPassedRoad": "x", "DriverName": "x", "Sunvisor": 1,
}  # fmt: skip


def _listed(kind: str, members: dict[str, Any]) -> dict[str, Any]:
    return {f"{kind}ListObject": {f"{kind}Object": [members]}}


def _content(kind: str, digits: str, more: dict[str, Any]) -> dict[str, Any]:
    return _listed(kind, {f"{kind}ID": f"{_SOURCE}{digits}00001", **_COMMON, **more})


_BODIES: dict[str, dict[str, Any]] = {
    "Faces": _content("Face", "06", {**_PERSON, **_TIMES, "AgeUpLimit": 30, "AgeLowerLimit": 20}),
    "Persons": _content("Person", "01", {**_PERSON, **_TIMES, "AgeUpLimit": 30, "AgeLowerLimit": 20}),
    "MotorVehicles": _content("MotorVehicle", "02", _VEHICLE),
    "NonMotorVehicles": _content("NonMotorVehicle", "03", {**_VEHICLE, "VehicleType": "1"}),
    "Things": _content("Thing", "04", {"Name": "x", "Shape": "1", "Color": "1", "Size": "1", "Material": "x"}),
    "Scenes": _content("Scene", "05", {"WeatherType": "1", "SceneType": "1", "PopulationDensity": "1"}),
    "VideoLabels": _listed(
        "VideoLabel",
        {
            "VideoLabelID": f"{_SOURCE}0700001", "EventSort": 14, "CameraID": CAMERA, "IVADeviceID": CAMERA,
            "DeviceID": CAMERA, "CreateTimeAbs": _TIME, "TargetNum": 3, "PersonNum": 2, "VehicleNum": 1,
            "PersonFlowRate": 10, "FlowDirection": "1", "Title": "x", "Note": "x",
            "MoveObjectSet": {"MoveObject": [{"PosX": 1, "PosY": 1, "Width": 1, "Height": 1, "SpeedVal": 1}]},
        },
    ),
    "APEs": _listed(
        "APE",
        {
            "ApeID": "44010600001190000005", "Name": "x", "Model": "m", "IPAddr": "10.0.0.1", "IPV6Addr": "::1",
            "Port": 80, "Longitude": 113.3, "Latitude": 23.1, "PlaceCode": "440106", "Place": "x", "OrgCode": "1",
            "CapDirection": 0, "MonitorDirection": "1", "MonitorAreaDesc": "x", "IsOnline": "1", "OwnerApsID": CAMERA,
            "UserId": "admin", "Password": "x", "FunctionType": "1",
        },
    ),
    "Tollgates": _listed(
        "Tollgate",
        {
            "TollgateID": "44010600001210000005", "Name": "x", "Longitude": 113.3, "Latitude": 23.1, "Place": "x",
            "PlaceCode": "440106", "Status": "1", "TollgateCat": "10", "TollgateUsage": 80, "LaneNum": 2,
        },
    ),
    "Lanes": _listed("Lane", {"TollgateID": CAMERA, "LaneId": 1, "LaneNo": 1, "Name": "x", "Desc": "x"}),
    "Images": _listed("Image", {"ImageInfo": _IMAGE, "FaceList": {"FaceObject": [{"FaceID": "1"}]}, "Data": "AAAA"}),
    "Cases": _listed("Case", {"CaseInfo": {"CaseID": "1" * 30, "CaseName": "x", "CaseAbstract": "x", "Suspect": "x"}}),
    "SubscribeNotifications": _listed(
        "SubscribeNotification",
        {
            "NotificationID": f"44010000000004{_TIME}00001", "SubscribeID": f"44010000000003{_TIME}00001", "Title": "x",
            "TriggerTime": _TIME, "InfoIDs": f"{_SOURCE}0600001",
            "FaceObjectList": {"FaceObject": [{"FaceID": f"{_SOURCE}0600001", **_COMMON, **_PERSON, **_TIMES}]},
            "MotorVehicleObjectList": {
                "MotorVehicleObject": [{"MotorVehicleID": f"{_SOURCE}0200001", **_COMMON, **_VEHICLE}]
            },
            "DeviceList": {"APEObject": [{"ApeID": CAMERA, "Name": "x", "Password": "x", "UserId": "x"}]},
        },
    ),
    "Subscribes": _listed(
        "Subscribe",
        {
            "SubscribeID": f"44000000000003{_TIME}00001", "Title": "x", "SubscribeDetail": "11,12,13",
            "ResourceURI": "4401", "ApplicantName": "x", "ApplicantOrg": "x", "BeginTime": _TIME,
            "EndTime": "20990101000000", "ReceiveAddr": "http://127.0.0.1:9/VIID/SubscribeNotifications",
            "ReportInterval": 3, "Reason": "x", "OperateType": 0, "SubscribeStatus": 0, "ResourceClass": 4,
            "ResultImageDeclare": "-1", "ResultFeatureDeclare": -1, "TabID": "x",
        },
    ),
}  # fmt: skip
BODIES: Final = {name: json.dumps(tree, ensure_ascii=False).encode() for name, tree in _BODIES.items()}
"""Name of the collection -> body."""
