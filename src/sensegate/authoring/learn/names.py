"""Guess properties from field names: the words that makers use, in English, Chinese and abbreviations -> property.

A name is split into words (``TempC_SHT`` -> temperature, celsius, sht); the rule with most of its words in the name
wins. This dictionary serves guesses that people review; it is not a standard and is sometimes wrong.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final, NamedTuple

from sensegate.quantities.properties import PROPERTIES

_ABBREVIATIONS: Final = {
    "temperature": "temp tem tmp temperatur tempreature temperature wendu tc degc ntc ds18b20 pt100",
    "humidity": "hum humi humid humidity rh shidu feuchte humidty moist",
    "pressure": "press pres pressure baro barometer barometric qiya pressurehpa",
    "battery": "bat batt battery batv akku dianchi vbat",
    "voltage": "volt volts voltage vol dianya vdd vcc u",
    "current": "curr current amp ampere amps dianliu",
    "power": "power pwr gonglv watt watts apower",
    "energy": "energy aenergy kwh wh consumption dianneng ep",
    "level": "level lvl",
    "percent": "pct percent percentage",
    "light": "light lum luminosity brightness",
    "illuminance": "illuminance lux illum ill als zhaodu lightlux",
    "wind": "wind feng",
    "speed": "speed spd velocity fengsu",
    "direction": "direction dir dirction bearing fengxiang",
    "rain": "rain rainfall precipitation precip yuliang jiangyu",
    "soil": "soil turang",
    "water": "water shui",
    "moisture": "moisture moist vwc",
    "conductivity": "conductivity conduct cond ec",
    "noise": "noise sound zaosheng spl db dba",
    "leq": "leq laeq",
    "distance": "distance dist juli ullage",
    "height": "height",
    "depth": "depth",
    "latitude": "lat latitude weidu",
    "longitude": "lon lng long longitude jingdu",
    "altitude": "alt altitude elevation",
    "signal": "signal sig",
    "rssi": "rssi csq",
    "snr": "snr lsnr sinr",
    "average": "avg average mean",
    "maximum": "max maximum",
    "minimum": "min minimum",
    "total": "total tot sum cumulative accumulated cum",
    "count": "count cnt counter counts num number",
    "occupied": "occupied occupancy parking occupy",
    "door": "door gate",
    "smoke": "smoke yanwu",
    "alarm": "alarm alert warning",
    "leak": "leak leakage flood",
    "motion": "motion pir movement moving move",
    "tamper": "tamper tampered dismantle fangchai",
    "pm25": "pm25 pm2_5 pm2p5 pm2d5",
    "pm10": "pm10",
    "pm1": "pm1 pm1_0 pm01",
    "co2": "co2 eco2 co2eq",
    "tvoc": "tvoc voc",
    "formaldehyde": "hcho ch2o formaldehyde formaldehyd",
    "tilt": "tilt inclination angle qingjiao",
    "frequency": "frequency freq hz",
    "factor": "factor",
    "dew": "dew dewpoint",
    "radiation": "radiation irradiance solar",
    "turbidity": "turbidity turb zhuodu",
    "oxygen": "oxygen",
    "reactive": "reactive var",
    "apparent": "apparent va aprtpower",
    "satellites": "satellites sats sat",
    "heading": "heading course azimuth cog",
}
_WORD_OF_FORM: Final = {form: word for word, forms in _ABBREVIATIONS.items() for form in forms.split()}

_CHINESE_WORDS: Final = """
电池电压=battery voltage; 供电电压=supply voltage; 电池=battery; 电量=battery level; 电压=voltage; 电流=current
有功功率=active power; 功率因数=power factor; 功率=power; 电能=energy; 频率=frequency; 土壤=soil
水温=water temperature; 温度=temperature; 气温=temperature; 湿度=humidity; 含水率=soil moisture; 气压=pressure
风速=wind speed; 风向=wind direction; 雨量=rain; 降雨=rain; 照度=illuminance; 光照=illuminance; 噪声=noise
水位=water level; 液位=liquid level; 流量=flow; 流速=flow speed; 累计=total; 溶解氧=dissolved oxygen
浊度=turbidity; 电导率=conductivity; 氨氮=ammonia nitrogen; 总磷=total phosphorus; 总氮=total nitrogen
经度=longitude; 纬度=latitude; 倾角=tilt; 烟雾=smoke; 信号=signal; 状态=state; 报警=alarm; 井盖=cover
车位=occupied; 门磁=door; 水浸=leak; 满溢=fill level
"""
_CHINESE: Final = tuple(
    (chinese.strip(), english)
    for chinese, _, english in (pair.partition("=") for pair in re.split(r"[;\n]", _CHINESE_WORDS) if pair.strip())
)

_UNITS: Final = {
    "c": "Cel", "degc": "Cel", "celsius": "Cel", "f": "[degF]", "degf": "[degF]", "fahrenheit": "[degF]", "k": "K",
    "pct": "%", "percent": "%", "mv": "mV", "v": "V", "kv": "kV", "ma": "mA", "a": "A", "w": "W", "kw": "kW",
    "wh": "W.h", "kwh": "kW.h", "mwh": "MW.h", "va": "V.A", "kva": "kV.A", "pa": "Pa", "hpa": "hPa", "mbar": "mbar",
    "kpa": "kPa", "mpa": "MPa", "bar": "bar", "psi": "[psi]", "lx": "lx", "lux": "lx", "ppm": "[ppm]", "ppb": "[ppb]",
    "ugm3": "ug/m3", "mgm3": "mg/m3", "mgl": "mg/L", "uscm": "uS/cm", "mscm": "mS/cm", "dsm": "mS/cm", "mm": "mm",
    "cm": "cm", "m": "m", "km": "km", "ms": "m/s", "kmh": "km/h", "kph": "km/h", "mph": "[mi_i]/h", "m3": "m3",
    "m3h": "m3/h", "lpm": "L/min", "l": "L", "hz": "Hz", "db": "dB", "dba": "dB", "dbm": "dB", "deg": "deg", "s": "s",
    "sec": "s", "min": "min", "h": "h", "kg": "kg", "g": "g", "ntu": "[NTU]", "wm2": "W/m2", "usvh": "uSv/h",
}  # fmt: skip
"""Last word of a name -> the unit that it may stand for (``temp_c``, ``BatV``)."""

_UNIT_QUANTITIES: Final = {"V": "voltage", "mV": "voltage", "lx": "illuminance", "kW.h": "energy", "W.h": "energy"}
"""Unit -> quantity, for names in which nothing else states the quantity (``BatV``)."""

_RULES: Final = """
air_temperature: temperature | air temperature | outdoor temperature | ambient temperature | external temperature
air_temperature_max: maximum temperature
air_temperature_min: minimum temperature
device_temperature: device temperature | internal temperature | board temperature | cpu temperature | mcu temperature
room_temperature: room temperature | indoor temperature | local temperature
setpoint_temperature: setpoint | heating setpoint | set temperature | target temperature
probe_temperature: probe temperature | temperature ds
water_temperature: water temperature
soil_temperature: soil temperature | temperature soil
surface_temperature: surface temperature | object temperature
road_temperature: road temperature
cable_temperature: cable temperature | wire temperature
relative_humidity: humidity | relative humidity | air humidity
device_humidity: device humidity | internal humidity
dew_point: dew | dew point | dew temperature
air_pressure: pressure | air pressure | atmospheric pressure | atmos pressure
water_pressure: water pressure
gas_pressure: gas pressure
wind_speed: wind speed | windspeed
wind_gust: wind gust | gust | maximum wind speed
wind_direction: wind direction | winddirection | direction
rainfall: rain | rain hour
rainfall_total: rain total | rain count
rain_intensity: rain intensity | rain rate
illuminance: illuminance | light | light illuminance
uv_index: uv | uv index | uvi
solar_irradiance: radiation | solar radiation
par: par
visibility: visibility
snow_depth: snow depth | snow
lightning_count: lightning | lightning count
pm1: pm1
pm2_5: pm25 | pm 25
pm10: pm10
tsp: tsp
ch4_fraction: ch4 | methane
co2: co2 | carbon dioxide | co 2
co_fraction: co
so2_fraction: so2
no2_fraction: no2
o3_fraction: o3
voc_fraction: tvoc
voc_index: voc index | iaq | tvoc index
formaldehyde: formaldehyde
aqi: aqi
air_quality: air quality
smoke_concentration: smoke concentration | smoke density | smoke value
sound_level: noise | noise level
sound_level_leq: leq | noise average | noise mean
sound_level_max: noise maximum | lmax
sound_peak: noise peak | sound peak
soil_moisture: soil moisture | soil humidity | moisture | water soil | soil water | vwc
soil_conductivity: soil conductivity | conductivity soil
soil_ph: soil ph
leaf_wetness: leaf wetness | leaf moisture
conductivity: conductivity | water conductivity
ph: ph | ph value
orp: orp
dissolved_oxygen: dissolved oxygen | do
turbidity: turbidity
cod: cod
ammonia_nitrogen: ammonia nitrogen | nh3n | nh3 n | nh4
total_phosphorus: total phosphorus | tp
total_nitrogen: total nitrogen | tn
residual_chlorine: chlorine | residual chlorine
salinity: salinity
chlorophyll_a: chlorophyll
water_level: water level | river level
liquid_level: liquid level | level | liquid | tank level
water_depth: water depth | depth
groundwater_level: groundwater level
fill_level: fill level | filling level | fullness
distance: distance | range | height
flow_velocity: flow speed | flow velocity
river_flow: river flow | discharge
water_flow: water flow | flow | flow rate
water_volume: water total | flow total | water volume | water consumption | meter reading
gas_volume: gas total | gas volume
water_leak: leak | water leak | water flood
battery_level: battery | battery level | battery percent | soc | electricity
battery_voltage: battery voltage
battery_low: battery low | low battery | low voltage
supply_voltage: supply voltage | external voltage | vin | input voltage | power voltage
charging: charging | charge
voltage: voltage | phase voltage
current: current
active_power: power | active power | power active
reactive_power: reactive power | q
apparent_power: apparent power | s power
power_factor: power factor | pf | cos phi
frequency: frequency
energy: energy | total energy | active energy | energy total
energy_today: energy today | today | day energy
energy_yesterday: energy yesterday | yesterday
leakage_current: leakage current | residual current | leak current
switched_on: relay | switch | socket | plug | onoff | output | state l
brightness: brightness | dim | dimming
colour_temperature: color temperature | color temp | colour temperature
illumination_on: lamp | lamp on | lamp state
latitude: latitude
longitude: longitude
altitude: altitude
speed: speed | vehicle speed gps
heading: heading
satellites: satellites
hdop: hdop
mileage: mileage | odometer
rssi: rssi | signal rssi | signal strength
rsrp: rsrp
snr: snr
link_quality: linkquality | link quality | lqi
signal_quality: signal | signal quality
smoke: smoke | smoke alarm
fire_alarm: fire | fire alarm
gas_alarm: gas | gas alarm | combustible gas
gas_concentration: gas concentration | lel
co_alarm: co alarm | carbon monoxide
alarm: alarm
tamper: tamper | tamper alarm
fault: fault | error
motion: motion
occupancy: occupancy | occupied
presence: presence | human
parking_occupied: parking | parking occupied | car | vehicle present
contact: contact
door_open: door | door open | door state
window_open: window | window open
vibration: vibration | shake
tilted: tilted | tilt alarm
tilt_angle: tilt | tilt angle
tilt_x: tilt x | angle x | x tilt | roll
tilt_y: tilt y | angle y | y tilt | pitch
acceleration_x: acceleration x | acc x | accel x | x acceleration | x axis
acceleration_y: acceleration y | acc y | accel y | y acceleration | y axis
acceleration_z: acceleration z | acc z | accel z | z acceleration | z axis
displacement: displacement
crack_width: crack | crack width
cover_open: cover | cover open | manhole
people_count: people | people count | person
people_in: people in | in count | line in
people_out: people out | out count | line out
people_in_total: people in total | total in
people_out_total: people out total | total out
vehicle_count: vehicle | vehicle count
vehicle_speed: vehicle speed | average speed
weight: weight
valve_open: valve | valve open | valve state
valve_position: valve position | position
pulse_count: pulse | pulse count | pulses
count: count
trigger_count: trigger count | events
motion_count: motion count | pir count
uptime: uptime
restart_count: restart | reboot count
frame_counter: fcnt | frame counter
firmware: firmware | fw version | software version
serial_number: serial | sn | serial number
radon: radon
radiation_dose_rate: dose | dose rate
lift_floor: floor
lift_speed: lift speed
people_density: density people
running: running | run | run state
online: online
button_pressed: button
action: action
mode: mode
"""


class NameRule(NamedTuple):
    """Words that together suggest a property."""

    property: str
    words: frozenset[str]


@cache
def _rules() -> tuple[NameRule, ...]:
    rules: list[NameRule] = []
    for line in _RULES.strip().splitlines():
        name, _, choices = line.partition(":")
        PROPERTIES.index(name)  # raises if a property was renamed and its row here was not
        rules += [NameRule(name, frozenset(words.split())) for words in choices.split("|") if words.strip()]
    known = {rule.words for rule in rules}
    rows = ((row.name, frozenset(words_of(row.name))) for row in PROPERTIES.rows)
    rules += [NameRule(name, words) for name, words in rows if words not in known]
    return tuple(rules)


_CAMEL = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_LETTERS_DIGITS = ("pm", "ch", "eco", "co", "no", "so", "o", "ds", "pt", "nh", "h", "uv", "l")


def words_of(name: str) -> list[str]:
    """Return the words of a name with abbreviations expanded: ``soilTemp_1`` -> soil, temperature, 1."""
    for chinese, english in _CHINESE:
        name = name.replace(chinese, f" {english} ")
    folded = re.sub(r"[^a-z0-9]", "", name.lower())
    if folded in _WORD_OF_FORM:
        return [_WORD_OF_FORM[folded]]
    parts: list[str] = []
    for piece in re.split(r"[^A-Za-z0-9.]+", name):
        for word in _CAMEL.findall(piece):
            if word.isdigit() and parts and parts[-1] in _LETTERS_DIGITS:
                parts[-1] += word  # pm25, co2, no2
            elif word == "5" and parts and parts[-1] == "pm2":
                parts[-1] = "pm25"
            else:
                parts.append(word.lower())
    return [_WORD_OF_FORM.get(part, part) for part in parts]


def unit_of(name: str) -> str:
    """Return the unit that the end of a name stands for (``temp_c``, ``BatV``, ``ILL_lx``), or an empty string."""
    words = _CAMEL.findall(re.split(r"[.\[\]]", name)[-1]) if name else []
    whole = re.split(r"[_\-. ]+", name)
    for end in (whole[-1] if len(whole) > 1 else "", "".join(words[-2:]) if len(words) > 2 else "", *words[1:]):
        if (unit := _UNITS.get(end.lower())) and end != name:
            return unit
    return ""


_GENERIC: Final = frozenset({"value", "val", "v", "data", "reading", "current_value"})
"""Last steps that carry no meaning: the step before them names the value."""


_DISQUALIFYING_WORDS: Final = (
    "changed change delta flag threshold limit calibration offset interval setting config enabled enable error raw"
    " event timeout period alarm report sensitivity hysteresis"
)
_DISQUALIFYING: Final = frozenset(_DISQUALIFYING_WORDS.split())
"""Words that change the meaning of a name: a temperature threshold is not a temperature."""


class NameMatch(NamedTuple):
    """A property that a name suggests."""

    property: str
    words: int
    """How many words of the name suggest it."""


def matches(steps: tuple[str, ...]) -> list[NameMatch]:
    """Return the properties that a path may name, the most likely first; the words of its last step count most."""
    if len(steps) > 1 and steps[-1].lower() in _GENERIC:
        steps = steps[:-1]
    own = set(words_of(steps[-1])) if steps else set()
    around = {word for step in steps[:-1] for word in words_of(step)}
    if quantity := _UNIT_QUANTITIES.get(unit_of(steps[-1]) if steps else ""):
        own.add(quantity)
    ranks: dict[str, tuple[int, int, int]] = {}
    for rule in _rules():
        if not rule.words <= own | around or not rule.words & own or (own - rule.words) & _DISQUALIFYING:
            continue
        rank = (len(rule.words), len(rule.words & own), -len(own))
        ranks[rule.property] = max(ranks.get(rule.property, (0, 0, -99)), rank)
    ranked = sorted(ranks.items(), key=lambda item: item[1], reverse=True)
    return [NameMatch(name, rank[0]) for name, rank in ranked]
