"""Why a caller may or may not reach a service, in sentences: from the state that is in force."""
