"""Certificates for tests: of localhost, 127.0.0.1 and ::1, its own authority, valid from 2020 to 2119.

They protect nothing. Made with `openssl ecparam -name prime256v1 -genkey` and `openssl ca -selfsign`.
"""

from pathlib import Path

CERTIFICATE = b"""-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABIf2c8nQqM0c4tYo
jaQh7TDoCFN1VWqbyZN/lxCLi3hA/o9lx79FKZLEW2ZMeF9t/xy/banjJgP6QnAM
zq2DIcijYDBeMCwGA1UdEQQlMCOCCWxvY2FsaG9zdIcEfwAAAYcQAAAAAAAAAAAA
AAAAAAAAATAPBgNVHRMBAf8EBTADAQH/MB0GA1UdDgQWBBSGRZR3uI9e0mbyZEf0
+41GSePJKjAKBggqhkjOPQQDAgNIADBFAiEA+seJI9dhsN8Atuo3skecGctwRH1H
bTlJwLNT1yQmm24CIGGRLTYTt19S1xW03Xi+1pSfbYxDTVF4g6hdBBZxIbb9
-----END CERTIFICATE-----
"""

KEY = b"""-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgmMyk/O0cVhdorbAf
nRaRu8b01cW54guq9IKxrPsjyJOhRANCAASH9nPJ0KjNHOLWKI2kIe0w6AhTdVVq
m8mTf5cQi4t4QP6PZce/RSmSxFtmTHhfbf8cv22p4yYD+kJwDM6tgyHI
-----END PRIVATE KEY-----
"""

OTHER_KEY = b"""-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgiUx+yc58vsn8Sy/r
mvCJxKh9B8q9zSx8U1ecLVAZEbOhRANCAAT8cVSQopaKcEyFXgX+oDAAPi7jZ/CW
RGvLi5PvuS6f/22m9GD95EDImE1GBdKHxyLzT1m79FZjZw4ImVyiWO3t
-----END PRIVATE KEY-----
"""
"""Of no certificate."""

ENCRYPTED_KEY = b"""-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjXjxB1Ew6QEwICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEJSzwwxyCA99TnIBMKLIZgIEgZDE
njmNUoF2lh5jtVwdOtvlZx9PgPKlEOMZ1NATT08xP49dVn+cJkqe1gvODloKGIkl
kK/DSKNon9e2drIDRD5hDmIjczqSOQQJkIyMtZutP/Ub987O8p2izwqqq/m/9art
UXWCsxjlVCB9eKapTTvtTSrMrDfyVEJGZtTD98xiomcxhrRpTCof7qo19kPQMrc=
-----END ENCRYPTED PRIVATE KEY-----
"""
"""The first, with a passphrase."""


def written(
    folder: Path, certificate: bytes = CERTIFICATE, key: bytes = KEY, mode: int = 0o600
) -> tuple[Path, Path]:
    """Files with a certificate and a key. mode: of the key's."""
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate)
    paths[1].write_bytes(key)
    paths[1].chmod(mode)
    return paths
