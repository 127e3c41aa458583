"""The MQTT front: terminates MQTT 5.0, 3.1.1 and 3.1, and acknowledges what is stored."""
