//! A PostgreSQL data directory: control file, pages, WAL, file list, settings
