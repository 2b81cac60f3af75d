"""docs/reference, written from the code: commands, metrics, fields of logs, routes of the admin API."""
