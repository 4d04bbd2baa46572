"""Parts of the stage `sweep`: space, trials, gradient noise, tables, advice."""
