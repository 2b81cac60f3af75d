# What makes Consul deny by default: a file of the agents' configuration, no config entry. Without default_intention_policy,
# acl.default_policy is also what holds where no intention matches.
acl {
  enabled        = true
  default_policy = "deny"
}

default_intention_policy = "deny"
