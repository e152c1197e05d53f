"""Publishing: cards, uploads, mirrors and the catalogue's page."""
