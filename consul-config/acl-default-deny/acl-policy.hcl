# The gateway's token where default_policy is "deny", for the links of this recipe. consul-tgw acl-policy prints it for
# what is linked now.

# Its own registration and its terminating-gateway entry.
service "terminating-gateway" {
  policy = "write"
}

# One rule for each linked service: with it the agent signs a certificate that lets the gateway be that service. Whoever
# has this token can be that service too: prefer a rule for each to service_prefix "".
service "inventory" {
  policy = "write"
}

# Addresses and checks of the nodes on which the services are registered.
node_prefix "" {
  policy = "read"
}

# What holds where no intention matches; without this rule the gateway does not know, and denies.
agent_prefix "" {
  policy = "read"
}
