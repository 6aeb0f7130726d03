//! The Parquet of a table says what its CSV says.
#![cfg(feature = "parquet")]

use std::fmt::Write as _;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use plimsoll_report::{Plan, REQUEST_COLUMNS, TIMESERIES_COLUMNS, write_parquet};

/// Reads back what was written of a CSV, cell by cell; returns the number of row groups.
fn check(csv: &str) -> usize {
    let plan = Plan { seed: 7, scenario_hash: "abc".to_owned(), ..Plan::default() };
    let mut file = tempfile::tempfile().expect("a file");
    write_parquet(&plan, csv.as_bytes(), &mut file).expect("room");
    let read = SerializedFileReader::new(file).expect("Parquet");
    let said = read.metadata().file_metadata().key_value_metadata().expect("metadata").clone();
    let seed = said.iter().find(|said| said.key == "plimsoll.seed").expect("the seed");
    assert_eq!(seed.value.as_deref(), Some("7"));
    let mut cells = csv::Reader::from_reader(csv.as_bytes());
    let names = cells.headers().expect("a header").clone();
    let mut rows = read.get_row_iter(None).expect("rows");
    for line in cells.records() {
        let (line, row) = (line.expect("a line"), rows.next().expect("a row").expect("a row"));
        for ((name, field), (column, cell)) in row.get_column_iter().zip(names.iter().zip(&line)) {
            assert_eq!(name, column);
            let same = match field {
                Field::Null => cell.is_empty(),
                Field::Str(text) => text == cell,
                Field::Long(number) => number.to_string() == cell,
                Field::Double(number) => cell.parse() == Ok(*number),
                other => panic!("{name} holds {other:?}"),
            };
            assert!(same, "{name}: {field:?} for {cell:?}");
        }
    }
    assert!(rows.next().is_none(), "no row too many");
    read.num_row_groups()
}

#[test]
fn every_cell_is_the_cell_of_the_csv() {
    let mut csv = format!("{REQUEST_COLUMNS}\n");
    for id in 0..70_000 {
        let seconds = format!("{}.{:09}", id / 7, id * 13);
        writeln!(
            csv,
            "{id},0,web,\"a,\"\"b\"\"\",,1.2,finished,{seconds},{seconds},,,,{seconds},100,5,64,\
             0.5,0.0,0.1,,4.0,0.5,0.3,,0,arrival_order,"
        )
        .expect("room");
    }
    assert_eq!(check(&csv), 2);
    let rows = "0,0.0,1.0,class,chat,3,2,1,0.500000,,1.000000,0.1,0.9,\n\
                0,0.0,1.0,pool,gpu,,,,,1.500000,2.000000,,0.9,0.4\n";
    assert_eq!(check(&format!("{TIMESERIES_COLUMNS}\n{rows}")), 1);
}
