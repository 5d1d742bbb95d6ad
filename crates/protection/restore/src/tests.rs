mod damage;
mod fixture;
mod hostile;
mod planning;
mod refusals;
mod round_trip;
mod sums;
