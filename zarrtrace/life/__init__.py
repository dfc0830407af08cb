"""Operations on a whole trace: create, split, finish, check, repair."""
