"""CEL, decisions, access and the grant: who may do what, said in one place."""
