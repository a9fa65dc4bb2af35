"""What a node owes: reports of its work, evidence for assessments, incident files, and a way out."""
