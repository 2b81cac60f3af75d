# How requests are read before they are judged, for every service of the mesh. What is not set has the secure default.
Kind = "mesh"

HTTP {
  # true: x-forwarded-client-cert is neither passed on nor added.
  SanitizeXForwardedClientCert = false

  Incoming {
    RequestNormalization {
      # true: paths are forwarded as they came. MergeSlashes counts only then; else slashes are always merged.
      InsecureDisablePathNormalization = false

      # What becomes of %2F and %5C: KEEP_UNCHANGED (the default), REJECT_REQUEST, UNESCAPE_AND_FORWARD or
      # UNESCAPE_AND_REDIRECT. Permissions read them as slashes in any case.
      PathWithEscapedSlashesAction = "REJECT_REQUEST"

      # ALLOW (the default), REJECT_REQUEST or DROP_HEADER: many servers take a_b for a-b.
      HeadersWithUnderscoresAction = "REJECT_REQUEST"
    }
  }
}
