"""Words that makers use in names of members, in English, Chinese and abbreviations, and the property that they name.

A choice that ends in ``?`` says too little alone (``level``): it suggests a property and never states one. One that
ends in ``~`` states it together with a stated unit (``light`` in lux).
"""

from __future__ import annotations

import re
from typing import Final

ABBREVIATIONS: Final = {
    "temperature": "temp tem tmp temperatur tempreature temperature wendu",
    "humidity": "hum humi humid humidity rh shidu feuchte humidty",
    "pressure": "press pres pressure baro barometer barometric qiya pressurehpa",
    "battery": "bat batt battery batv akku dianchi vbat",
    "voltage": "volt volts voltage vol dianya vdd vcc u",
    "current": "curr current ampere amps dianliu",
    "power": "power pwr gonglv watt watts apower",
    "energy": "energy aenergy kwh wh mwh dianneng ep",
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
    "longitude": "lon lng longitude jingdu",
    "altitude": "alt altitude",
    "signal": "signal sig",
    "rssi": "rssi csq",
    "snr": "snr lsnr",
    "average": "avg average mean",
    "maximum": "max maximum",
    "minimum": "min minimum",
    "total": "total tot sum cumulative accumulated cum",
    "count": "count cnt counter counts",
    "occupied": "occupied occupy",
    "door": "door gate",
    "smoke": "smoke yanwu",
    "alarm": "alarm alert warning",
    "leak": "leak leakage flood",
    "motion": "motion pir movement",
    "moving": "moving move moved",
    "tamper": "tamper tampered dismantle fangchai",
    "pm25": "pm25",
    "pm10": "pm10",
    "pm1": "pm1",
    "co2": "co2",
    "eco2": "eco2 co2eq eqco2",
    "tvoc": "tvoc voc",
    "formaldehyde": "hcho ch2o formaldehyde formaldehyd",
    "tilt": "tilt inclination qingjiao",
    "frequency": "frequency freq",
    "hertz": "hz",
    "factor": "factor",
    "dew": "dew dewpoint",
    "radiation": "radiation irradiance solar",
    "turbidity": "turbidity turb zhuodu",
    "oxygen": "oxygen",
    "reactive": "reactive var",
    "apparent": "apparent va aprtpower",
    "satellites": "satellites sats",
    "heading": "heading course cog",
    "dissolved": "dissolved do ldo odo rdo",
    "saturation": "saturation sat",
    "par": "par ppfd",
    "reference": "reference ref",
    "setpoint": "setpoint",
    "particle": "particle particles",
}
WORD_OF_FORM: Final = {form: word for word, forms in ABBREVIATIONS.items() for form in forms.split()}

_CHINESE_WORDS: Final = """
电池电压=battery voltage; 供电电压=supply voltage; 电池=battery; 电量=battery level; 电压=voltage; 电流=current
有功功率=active power; 功率因数=power factor; 功率=power; 电能=energy; 频率=frequency; 土壤=soil
水温=water temperature; 温度=temperature; 气温=temperature; 湿度=humidity; 含水率=soil moisture; 气压=pressure
风速=wind speed; 风向=wind direction; 雨量=rain; 降雨=rain; 照度=illuminance; 光照=illuminance; 噪声=noise
水位=water level; 液位=liquid level; 流量=flow; 流速=flow speed; 累计=total; 溶解氧=dissolved oxygen
浊度=turbidity; 电导率=conductivity; 氨氮=ammonia nitrogen; 总磷=total phosphorus; 总氮=total nitrogen
经度=longitude; 纬度=latitude; 倾角=tilt; 烟雾=smoke; 信号=signal; 状态=state; 报警=alarm; 井盖=cover
车位=occupied; 门磁=door; 水浸=water leak; 满溢=fill level
"""
CHINESE: Final = tuple(
    (chinese.strip(), english)
    for chinese, _, english in (pair.partition("=") for pair in re.split(r"[;\n]", _CHINESE_WORDS) if pair.strip())
)

UNITS: Final = {
    "c": "Cel", "degc": "Cel", "celsius": "Cel", "f": "[degF]", "degf": "[degF]", "fahrenheit": "[degF]", "k": "K",
    "pct": "%", "percent": "%", "percentage": "%", "mv": "mV", "v": "V", "kv": "kV", "ma": "mA", "a": "A", "w": "W",
    "kw": "kW", "wh": "W.h", "kwh": "kW.h", "mwh": "MW.h", "va": "V.A", "kva": "kV.A", "pa": "Pa", "hpa": "hPa",
    "mbar": "mbar", "kpa": "kPa", "mpa": "MPa", "bar": "bar", "psi": "[psi]", "lx": "lx", "lux": "lx", "ppm": "[ppm]",
    "ppb": "[ppb]", "ugm3": "ug/m3", "mgm3": "mg/m3", "mgl": "mg/L", "uscm": "uS/cm", "mscm": "mS/cm", "dsm": "mS/cm",
    "mm": "mm", "cm": "cm", "m": "m", "km": "km", "ms": "m/s", "kmh": "km/h", "kph": "km/h", "mph": "[mi_i]/h",
    "m3": "m3", "m3h": "m3/h", "lpm": "L/min", "l": "L", "hz": "Hz", "db": "dB", "dba": "dB", "dbm": "dB",
    "deg": "deg", "s": "s", "sec": "s", "min": "min", "h": "h", "kg": "kg", "g": "g", "ntu": "[NTU]", "wm2": "W/m2",
    "usvh": "uSv/h", "umol": "umol/m2/s", "um": "um", "mah": "mA.h", "ah": "A.h", "kvar": "kV.A", "var": "V.A",
    "kvarh": "kV.A.h", "varh": "V.A.h", "gal": "[gal_us]", "bqm3": "Bq/m3", "lmin": "L/min", "lh": "L/h",
    "mmh": "mm/h", "ohm": "Ohm", "kohm": "kOhm", "kmph": "km/h", "mps": "m/s", "inch": "[in_i]", "ft": "[ft_i]",
    "minutes": "min", "hours": "h", "seconds": "s", "volts": "V", "millivolts": "mV", "degrees": "deg",
    "dps": "deg/s", "ut": "uT", "mg": "mg",
}  # fmt: skip
"""Last word of a name -> the unit that it may stand for (``temp_c``, ``BatV``)."""

UNIT_QUANTITIES: Final = {"V": "voltage", "mV": "voltage", "lx": "illuminance", "kW.h": "energy", "W.h": "energy"}
"""Unit -> quantity, for names in which nothing else states the quantity (``BatV``)."""

RULES: Final = """
air_temperature: temperature | air temperature | outdoor temperature | ambient temperature
air_temperature_mean: average temperature | air average temperature
road_temperature: road surface temperature
air_temperature_max: maximum temperature
air_temperature_min: minimum temperature
device_temperature: device temperature | internal temperature | board temperature | cpu temperature | mcu temperature
device_temperature: chip temperature | soc temperature | die temperature
room_temperature: room temperature | indoor temperature | local temperature
setpoint_temperature: setpoint? | heating setpoint | set temperature | target temperature | setpoint temperature
probe_temperature: probe temperature | temperature ds | external temperature?
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
wind_speed: wind speed | windspeed | wind~
wind_speed_mean: wind average | wind average speed
wind_gust: wind gust | gust~ | maximum wind speed? | wind gust speed
wind_direction: wind direction | winddirection | direction?
rainfall: rain?
rainfall_hour: rain hour | rain hourly
rainfall_total: rain total
rain_intensity: rain intensity | rain rate
illuminance: illuminance | light~ | light illuminance
uv_index: uv? | uv index | uvi
solar_irradiance: radiation~ | solar radiation | global radiation | solar irradiance
radiation_dose_rate: gamma dose rate
par: par | photosynthetically active radiation | photosynthetic active radiation | photon flux | quantum flux
stem_growth: dendrometer | dendro | stem growth | stem diameter change | trunk growth
oxygen_saturation: oxygen saturation | dissolved saturation | dissolved oxygen saturation | dissolved percent
total_dissolved_solids: tds | dissolved solids
vapour_pressure_deficit: vpd | vapor pressure deficit
visibility: visibility
snow_depth: snow depth | snow?
lightning_count: lightning? | lightning count
pm1: pm1 | pm1 mass concentration
pm2_5: pm25 | pm25 mass concentration
pm4: pm4 | pm4 mass concentration
pm10: pm10 | pm10 mass concentration
pm1_count: pm1 number concentration
pm2_5_count: pm25 number concentration
pm4_count: pm4 number concentration
pm10_count: pm10 number concentration
pm0_5_count: pm05 number concentration
pm0_3_count: pm03 number concentration
tsp: tsp
ch4_fraction: ch4~ | methane~
co2: co2 | carbon dioxide | eco2? | co2 equivalent?
co_fraction: co~ | carbon monoxide
so2_fraction: so2
no2_fraction: no2
o3_fraction: o3
voc_fraction: tvoc~ | tvoc concentration~
voc_index: tvoc index | iaq? | iaq index?
no_fraction: nitric oxide
nh3_fraction: nh3
h2s_fraction: h2s
formaldehyde: formaldehyde
aqi: aqi
air_quality: air quality
smoke_concentration: smoke concentration | smoke density | smoke value
sound_level: noise | noise level | noise pressure level?
sound_level_leq: leq | noise average?
sound_level_max: noise maximum | lmax
sound_peak: noise peak | sound peak
soil_moisture: soil moisture | soil humidity | moisture~ | water soil | soil water | soil water content
soil_moisture: volumetric water content
soil_conductivity: soil conductivity | soil electrical conductivity
soil_ph: soil ph
leaf_wetness: leaf wetness | leaf moisture
conductivity: conductivity | water conductivity | electrical conductivity
ph: ph | water ph
orp: orp
dissolved_oxygen: dissolved oxygen | dissolved
turbidity: turbidity
cod: cod
ammonia_nitrogen: ammonia nitrogen | nh3n | nh3 n | nh4
total_phosphorus: total phosphorus | tp
total_nitrogen: total nitrogen | tn
residual_chlorine: chlorine | residual chlorine
salinity: salinity
chlorophyll_a: chlorophyll
water_level: water level | river level
liquid_level: liquid level | level? | liquid?
water_depth: water depth | depth?
groundwater_level: groundwater level
fill_level: fill level | filling level | fullness | fill percent | tank level~ | silo level~ | bin level~ | fill?
distance: distance | range? | height?
flow_velocity: flow speed | flow velocity
river_flow: river flow | discharge?
water_flow: water flow | flow? | flow rate?
water_volume: water total | flow total? | water volume | water consumption | meter reading?
gas_volume: gas total | gas volume
water_leak: leak? | water leak | leak alarm? | leak detected?
battery_level: battery | battery level | battery percent | battery capacity? | soc? | battery soc
battery_level: battery level percent | battery capacity percent | state of charge | electricity?
battery_voltage: battery voltage
battery_low: battery low
supply_voltage: supply voltage | external voltage? | vin?
input_voltage: input voltage
battery_temperature: battery temperature
battery_current: battery current
charging: charging?
battery_charging: battery charging
voltage: voltage | phase voltage | line voltage?
current: current | amp?
active_power: power | active power | power active
reactive_energy: reactive energy | reactive energy import | reactive energy total
reactive_energy_exported: reactive energy export
energy_exported: energy export | active energy export | energy exported
reactive_power: reactive power | power reactive
apparent_power: apparent power
power_factor: power factor | pf | cos phi
frequency: frequency | hertz?
energy: energy~ | energy consumption~ | total energy | active energy | active energy total | active energy import
energy: active energy import total | energy import | energy consumed | power consumption~
energy_today: energy today | today? | day energy
energy_yesterday: energy yesterday | yesterday?
leakage_current: leakage current | residual current | leak current
switched_on: relay? | switch? | socket? | plug? | onoff | output? | state l?
brightness: brightness? | dim? | dimming?
colour_temperature: color temperature | color temp | colour temperature
illumination_on: lamp? | lamp on | lamp state?
latitude: latitude
longitude: longitude
altitude: altitude | elevation?
speed: speed? | vehicle speed gps? | gps speed | ground speed
heading: heading | gps heading
satellites: satellites | gps satellites | satellites count | gnss satellites | saturation? | satellites visible?
hdop: hdop
mileage: mileage | odometer
rssi: rssi | signal rssi | signal strength
rsrp: rsrp
snr: snr
sinr: sinr
link_quality: linkquality | link quality | lqi
signal_quality: signal? | signal quality
smoke: smoke | smoke alarm | smoke detected
fire_alarm: fire | fire alarm
gas_alarm: gas? | gas alarm | combustible gas?
gas_concentration: gas concentration? | lel | gas lel
co_alarm: co alarm | carbon monoxide alarm | carbon monoxide?
alarm: alarm
tamper: tamper | tamper alarm | tamper detected
fault: fault? | error?
motion: motion | motion detected | moving?
motion_count: motion count
occupancy: occupancy | occupied?
presence: presence | human? | presence detected
parking_occupied: parking? | parking occupied | car? | vehicle present?
contact: contact?
door_open: door? | door open | door state?
window_open: window? | window open
vibration: vibration? | shake? | vibration detected
tilted: tilted | tilt alarm
tilt_angle: tilt? | tilt angle | angle?
tilt_x: tilt x | angle x
tilt_y: tilt y | angle y
acceleration_x: acceleration x | acc x | accel x | x axis? | accelerometer x
acceleration_y: acceleration y | acc y | accel y | y axis? | accelerometer y
acceleration_z: acceleration z | acc z | accel z | z axis? | accelerometer z
displacement: displacement
crack_width: crack? | crack width
cover_open: cover? | cover open? | manhole? | manhole cover open
flood_alarm: flood alarm?
people_count: people? | people count? | person?
people_in: people in? | in count? | line in?
people_out: people out? | out count? | line out?
people_in_total: people in total | total in?
people_out_total: people out total | total out?
vehicle_count: vehicle? | vehicle count
vehicle_speed: vehicle speed | average speed?
weight: weight
valve_open: valve? | valve open | valve state?
valve_position: valve position | position?
pulse_count: pulse? | pulse count | pulses?
count: count?
trigger_count: trigger count | events?
uptime: uptime
restart_count: restart? | restart count | reboot count
frame_counter: fcnt | frame counter
firmware: firmware | fw version | firmware version | software version
serial_number: serial | sn | serial number
radon: radon
radiation_dose_rate: dose~ | dose rate
lift_floor: floor?
lift_speed: lift speed
people_density: density people
running: running | run? | run state?
online: online
button_pressed: button? | button pressed
action: action
mode: mode
"""


# ── meaning of words ─────────────────────────────────────────────────────────────────────────────────


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


WEAK_UNITS: Final = _words("""
c f k v a w m l s h g min ms pa deg bar mb mm cm d um var gal mg b km ut db sec
""")
"""Ends of names that may be a unit or something else (``temp_min``, ``phase_a``): they state a unit that the property
can have, and say nothing otherwise."""

NEUTRAL: Final = _words("""
value val data reading readings measurement measured measure sensor sensors sensorchip sht actual present latest the
of is has ch channel
""")
"""Words that do not change what is measured."""

CONTAINERS: Final = _words("""
payload decoded object uplink message messages telemetry params attributes properties report metrics fields
results channels normalized normalised body content values items records history measurements environment
environmental ambient current status state device datalog log list series points msg up json info weather
station air meter general common main internals samples
""")
"""Names of objects that only hold members."""

FORBIDDING: Final = _words("""
changed change changes delta difference diff flag threshold thresholds limit limits calibration calibrate
offset interval setting settings config configuration enabled enable disable disabled error err raw event
timeout period alarm alarms alert report reporting sensitivity hysteresis reference ratio inactivity inactive
nominal rated target coefficient slope gain duration age version address register identifier id unit units
trend std deviation variance invalid failed failure fail expired timestamp date rate index number code type
mode adc resistance no not non without serial part release sequence time delay counterid mask bitmask
""")
"""Words that change the meaning of a name: a temperature threshold is not a temperature."""

QUANTITIES: Final = _words("""
temperature humidity pressure level flow power speed volume position setpoint value count brightness direction
distance weight state mode illuminance co2 moisture rain wind
""")
