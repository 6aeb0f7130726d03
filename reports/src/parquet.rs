//! `requests.parquet` and `timeseries.parquet`: the tables of a run with typed columns, made from
//! the CSV, so that both say the same.

use std::io::{self, Read, Write};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

use crate::plan::Plan;

/// Rows that are held in memory until they are written together.
const GROUP: usize = 1 << 16;

/// The columns that hold names.
const TEXTS: [&str; 9] =
    ["source", "tenant", "class", "backend", "outcome", "reason", "bound", "kind", "name"];

/// The columns that hold whole numbers.
const INTEGERS: [&str; 10] = [
    "id",
    "replication",
    "prompt_tokens",
    "output_tokens",
    "output_cap",
    "preemptions",
    "recomputed_tokens",
    "arrived",
    "dispatched",
    "finished",
];

/// Writes a table of a run, given as CSV, as Parquet. Empty cells become nulls; the version of the
/// program, the scenario's hash and the seed stand in the metadata.
///
/// # Errors
/// Those of the reader and of the writer, and cells that are not what their column holds.
pub fn write_parquet(plan: &Plan, table: impl Read, out: impl Write + Send) -> io::Result<()> {
    let mut rows = csv::Reader::from_reader(table);
    let names: Vec<String> = rows.headers()?.iter().map(str::to_owned).collect();
    let mut columns: Vec<Column> = names.iter().map(|name| Column::new(name)).collect();
    let fields: String =
        names.iter().zip(&columns).map(|(name, column)| column.field(name)).collect();
    let schema = parse_message_type(&format!("message rows {{ {fields} }}")).map_err(failed)?;
    let mut file =
        SerializedFileWriter::new(out, Arc::new(schema), properties(plan)).map_err(failed)?;
    let (mut row, mut held) = (csv::StringRecord::new(), 0);
    while rows.read_record(&mut row)? {
        for (column, cell) in columns.iter_mut().zip(&row) {
            column.push(cell)?;
        }
        held += 1;
        if held == GROUP {
            write_group(&mut file, &mut columns).map_err(failed)?;
            held = 0;
        }
    }
    if held > 0 {
        write_group(&mut file, &mut columns).map_err(failed)?;
    }
    file.close().map_err(failed)?;
    Ok(())
}

fn properties(plan: &Plan) -> Arc<WriterProperties> {
    let said = [
        ("plimsoll.version", plan.version.clone()),
        ("plimsoll.scenario_hash", plan.scenario_hash.clone()),
        ("plimsoll.seed", plan.seed.to_string()),
    ];
    let said = said.map(|(key, value)| KeyValue::new(key.to_owned(), value));
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(said.to_vec()));
    Arc::new(properties.build())
}

fn failed(error: ParquetError) -> io::Error {
    io::Error::other(error)
}

fn write_group<W: Write + Send>(
    file: &mut SerializedFileWriter<W>,
    columns: &mut [Column],
) -> Result<(), ParquetError> {
    let mut group = file.next_row_group()?;
    for column in columns {
        let mut out = group.next_column()?.expect("the schema has a field for each column");
        column.write(&mut out)?;
        out.close()?;
    }
    group.close()?;
    Ok(())
}

/// The cells of a column that are not written yet.
struct Column {
    cells: Cells,
    /// 1 where a row has a value, 0 where it has none.
    there: Vec<i16>,
}

/// Values, nulls left out.
enum Cells {
    Texts(Vec<ByteArray>),
    Integers(Vec<i64>),
    Reals(Vec<f64>),
}

impl Column {
    fn new(name: &str) -> Column {
        let cells = if TEXTS.contains(&name) {
            Cells::Texts(Vec::new())
        } else if INTEGERS.contains(&name) {
            Cells::Integers(Vec::new())
        } else {
            Cells::Reals(Vec::new())
        };
        Column { cells, there: Vec::new() }
    }

    fn field(&self, name: &str) -> String {
        match self.cells {
            Cells::Texts(_) => format!("OPTIONAL BINARY {name} (UTF8); "),
            Cells::Integers(_) => format!("OPTIONAL INT64 {name}; "),
            Cells::Reals(_) => format!("OPTIONAL DOUBLE {name}; "),
        }
    }

    fn push(&mut self, cell: &str) -> io::Result<()> {
        self.there.push((!cell.is_empty()).into());
        if cell.is_empty() {
            return Ok(());
        }
        match &mut self.cells {
            Cells::Texts(texts) => texts.push(cell.into()),
            Cells::Integers(numbers) => numbers.push(cell.parse().map_err(io::Error::other)?),
            Cells::Reals(numbers) => numbers.push(cell.parse().map_err(io::Error::other)?),
        }
        Ok(())
    }

    fn write(&mut self, out: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        let there = Some(&self.there[..]);
        match &mut self.cells {
            Cells::Texts(texts) => {
                out.typed::<ByteArrayType>().write_batch(texts, there, None)?;
                texts.clear();
            }
            Cells::Integers(numbers) => {
                out.typed::<Int64Type>().write_batch(numbers, there, None)?;
                numbers.clear();
            }
            Cells::Reals(numbers) => {
                out.typed::<DoubleType>().write_batch(numbers, there, None)?;
                numbers.clear();
            }
        }
        self.there.clear();
        Ok(())
    }
}
