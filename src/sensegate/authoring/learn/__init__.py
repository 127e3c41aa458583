"""Profile inference: recorded messages become the draft of a profile, with every guess marked as one."""
