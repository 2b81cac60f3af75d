# What the gateway's token needs: consul acl policy create -name terminating-gateway -rules @consul-config/acl-policy.hcl

# Its own registration and its terminating-gateway entry.
service "terminating-gateway" {
  policy = "write"
}

# One rule for each linked service: the gateway asks for the certificate that lets it be that service. It brings the
# right to read the service, its intentions and its config entries along.
service "billing-db" {
  policy = "write"
}

service "partner-api" {
  policy = "write"
}

service "legacy-http" {
  policy = "write"
}

# Addresses and checks of the nodes on which the services are registered.
node_prefix "" {
  policy = "read"
}

# Optional: lets the gateway read what applies when no intention matches, instead of finding out by asking.
agent_prefix "" {
  policy = "read"
}
