"""Home Assistant: MQTT discovery of the series of a grant.

`classes`    device class, unit and state class of a property, as Home Assistant names them
`discovery`  the retained configurations of a grant's series, kept in line with what the grant shows
"""
