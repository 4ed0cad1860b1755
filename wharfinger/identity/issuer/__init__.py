"""The local issuer: keys, certificates, tokens, who is attested as whom, and the Workload API that gives them out."""
