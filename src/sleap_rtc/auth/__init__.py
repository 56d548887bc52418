"""Who may: keys, certificates, invites, membership lists and the handshake of a link."""
