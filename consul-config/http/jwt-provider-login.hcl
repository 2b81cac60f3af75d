# Whose tokens are valid. Write it before the intentions that name it.
Kind      = "jwt-provider"
Name      = "login"
Issuer    = "https://login.example/"
Audiences = ["reports"]

# Where a request carries its token; without Locations it is `Authorization: Bearer`.
Locations = [
  {
    Header = {
      Name        = "Authorization"
      ValuePrefix = "Bearer"
    }
  },
]

# The external service gets the payload of the verified token in this header, base64url.
Forwarding = {
  HeaderName = "x-token-payload"
}

# The gateway fetches the keys, and again before CacheDuration is over. Keys that were good stay in force while that fails.
# Local = { Filename = "/etc/consul-tgw/login-keys.json" } is a file on the gateway's host, Local = { JWKS = "..." } base64.
JSONWebKeySet = {
  Remote = {
    URI              = "https://login.example/.well-known/jwks.json"
    CacheDuration    = "10m"
    RequestTimeoutMs = 2000

    # Without it the server's certificate is verified with the roots of the gateway's host.
    JWKSCluster = {
      TLSCertificates = {
        TrustedCA = {
          Filename = "${TLS_DIR}/login-ca.pem"
        }
      }
    }
  }
}
