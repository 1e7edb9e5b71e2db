"""What a client of servers without TLS has instead of a list of authorities."""

import ssl

# It trusts nobody. Each client would else read all authorities that the machine knows, which takes
# longer than most requests of a test.
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
