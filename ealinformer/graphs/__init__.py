"""What models make of a graph of sensors, and graphs made of a series: numpy and scipy alone.

An adjacency is a matrix `[N, N]` of closeness: entry (i, j) is the weight of the edge i -> j, above 0, and 0 where
there is none. Results are float64 unless something else is said.
"""
