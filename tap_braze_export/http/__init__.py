"""HTTP for Braze and for stores: sessions within limits, retries, threads for transfers; imports no other part."""
