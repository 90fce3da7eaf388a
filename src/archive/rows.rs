//! Rows of a file as events again, a batch at a time.

use parquet::column::reader::ColumnReaderImpl;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::BoolType;
use parquet::data_type::ByteArrayType;
use parquet::data_type::DataType;
use parquet::data_type::Int32Type;
use parquet::data_type::Int64Type;
use parquet::errors::ParquetError;
use parquet::errors::Result;
use parquet::file::reader::RowGroupReader;

use crate::model::Device;
use crate::model::Event;
use crate::model::Page;
use crate::model::Source;
use crate::store::journal::EventNo;

use super::columns::FIRST_TEXT;
use super::columns::OPTIONAL;
use super::columns::REQUIRED;
use super::json::NotOurs;
use super::json::read_fields;
use super::json::read_ids;

/// The readers of a row group's columns, side by side, and the rows read last.
///
/// Invariant: after a read every column holds the same rows.
pub(super) struct RowBatch {
    sequence: Column<Int64Type>,
    part: Column<Int32Type>,
    time: Column<Int64Type>,
    received: Column<Int64Type>,
    time_replaced: Column<BoolType>,
    bot: Column<BoolType>,
    required: [Column<ByteArrayType>; REQUIRED],
    optional: [Column<ByteArrayType>; OPTIONAL],
}

struct Column<T: DataType> {
    reader: ColumnReaderImpl<T>,
    values: Vec<T::T>,
    levels: Vec<i16>,
    /// Of an optional column: for each row the index of its value.
    places: Vec<Option<usize>>,
}

impl<T: DataType> Column<T> {
    fn open(group: &dyn RowGroupReader, index: usize) -> Result<Self> {
        let reader = get_typed_column_reader(group.get_column_reader(index)?);
        Ok(Self { reader, values: Vec::new(), levels: Vec::new(), places: Vec::new() })
    }

    fn read(&mut self, count: usize) -> Result<()> {
        self.values.clear();
        self.levels.clear();
        let levels = Some(&mut self.levels);
        let (records, _, _) = self.reader.read_records(count, levels, None, &mut self.values)?;
        if records != count {
            return Err(ParquetError::EOF("a column ends early".to_owned()));
        }
        Ok(())
    }

    fn read_optional(&mut self, count: usize) -> Result<()> {
        self.read(count)?;
        self.places.clear();
        let mut next = 0;
        self.places.extend(self.levels.iter().map(|level| {
            let place = (*level > 0).then_some(next);
            next += usize::from(*level > 0);
            place
        }));
        Ok(())
    }
}

impl Column<ByteArrayType> {
    fn text(&self, row: usize) -> std::result::Result<&str, NotOurs> {
        std::str::from_utf8(self.values[row].data()).map_err(|_| NotOurs)
    }

    fn optional_text(&self, row: usize) -> std::result::Result<Option<Box<str>>, NotOurs> {
        self.places[row].map(|place| self.text(place).map(Into::into)).transpose()
    }
}

fn open_all<const N: usize>(
    group: &dyn RowGroupReader,
    first: usize,
) -> Result<[Column<ByteArrayType>; N]> {
    let columns = (first..first + N).map(|index| Column::open(group, index));
    let columns: Vec<_> = columns.collect::<Result<_>>()?;
    columns.try_into().map_err(|_| ParquetError::General("a column is missing".to_owned()))
}

impl RowBatch {
    pub(super) fn open(group: &dyn RowGroupReader) -> Result<Self> {
        Ok(Self {
            sequence: Column::open(group, 0)?,
            part: Column::open(group, 1)?,
            time: Column::open(group, 2)?,
            received: Column::open(group, 3)?,
            time_replaced: Column::open(group, 4)?,
            bot: Column::open(group, 5)?,
            required: open_all(group, FIRST_TEXT)?,
            optional: open_all(group, FIRST_TEXT + REQUIRED)?,
        })
    }

    /// Reads the next rows in the place of those before.
    pub(super) fn read(&mut self, count: usize) -> Result<()> {
        self.sequence.read(count)?;
        self.part.read(count)?;
        self.time.read(count)?;
        self.received.read(count)?;
        self.time_replaced.read(count)?;
        self.bot.read(count)?;
        self.required.iter_mut().try_for_each(|column| column.read(count))?;
        self.optional.iter_mut().try_for_each(|column| column.read_optional(count))
    }

    /// The number of a row's event.
    pub(super) fn number(&self, row: usize) -> EventNo {
        EventNo {
            record: self.sequence.values[row].cast_unsigned(),
            part: self.part.values[row].cast_unsigned(),
        }
    }

    /// The name of a row's event.
    pub(super) fn event_name(&self, row: usize) -> std::result::Result<&str, NotOurs> {
        self.required[2].text(row)
    }

    /// A row's event.
    pub(super) fn event(&self, row: usize) -> std::result::Result<Event, NotOurs> {
        let [source, site, name, ids, props, attrs] = &self.required;
        let source = match source.text(row)? {
            "pixel" => Source::Pixel,
            "js" => Source::Js,
            "api" => Source::Api,
            "import" => Source::Import,
            _ => return Err(NotOurs),
        };
        let [message_id, url, referrer, title, kind, os, browser, country, locale] = &self.optional;
        let optional = |column: &Column<ByteArrayType>| column.optional_text(row);
        Ok(Event {
            site: site.text(row)?.into(),
            name: name.text(row)?.into(),
            time: self.time.values[row],
            received: self.received.values[row],
            time_replaced: self.time_replaced.values[row],
            source,
            message_id: optional(message_id)?,
            ids: read_ids(ids.text(row)?)?,
            props: read_fields(props.text(row)?)?,
            attrs: read_fields(attrs.text(row)?)?,
            page: Page {
                url: optional(url)?,
                referrer: optional(referrer)?,
                title: optional(title)?,
            },
            device: Device {
                kind: optional(kind)?,
                os: optional(os)?,
                browser: optional(browser)?,
            },
            bot: self.bot.values[row],
            country: optional(country)?,
            locale: optional(locale)?,
            // Traits ask nothing of it, and what a profile allows is with the profile.
            consent: None,
        })
    }
}
