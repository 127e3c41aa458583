"""Share: the log, cut to feeds and scopes, in any form, resumable by one cursor."""
