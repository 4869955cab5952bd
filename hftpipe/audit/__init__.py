"""Looking back: the journal as it was recorded, decided anew, and compared with what is there."""
