mod examples;
mod invalid;
mod lookups;
mod secrets;
mod words;
