"What is in every textbook about MNIST, for the tests."

TEST_DIGITS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # of the classes 0 to 9
