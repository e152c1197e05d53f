"""Parts that methods share: heads, decoder, momentum encoder, batch norms."""
