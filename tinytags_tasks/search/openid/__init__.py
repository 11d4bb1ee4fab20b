"""Signing in with an OpenID provider, where the setting ``oidc_issuer`` names one; see ADR 36."""
