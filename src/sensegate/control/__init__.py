"""Control of devices: tasking capabilities, tasks, and mode orders that give many of them at once."""
