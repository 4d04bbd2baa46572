"""Networks: named fields in, named fields out; none knows which target trains it."""
