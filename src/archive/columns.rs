//! The columns of a file: their names and types, and the rows that wait to be written.
//!
//! Every value lies in a buffer of its column, so that a row costs no allocation.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::basic::Encoding;
use parquet::basic::ZstdLevel;
use parquet::data_type::BoolType;
use parquet::data_type::ByteArray;
use parquet::data_type::ByteArrayType;
use parquet::data_type::DataType;
use parquet::data_type::Int32Type;
use parquet::data_type::Int64Type;
use parquet::errors::Result;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::EnabledStatistics;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use parquet::schema::types::TypePtr;

use crate::model::Event;
use crate::model::Identifier;
use crate::model::value::write_json_object;
use crate::model::value::write_json_string;
use crate::store::journal::EventNo;

/// The key of the version in a file's metadata.
pub(super) const VERSION_KEY: &str = "throng.archive";
/// The version of the columns.
pub(super) const VERSION: &str = "1";

const SCHEMA: &str = "message event {
    required int64 sequence;
    required int32 part;
    required int64 time (TIMESTAMP(MILLIS,true));
    required int64 received (TIMESTAMP(MILLIS,true));
    required boolean time_replaced;
    required boolean bot;
    required binary source (STRING);
    required binary site (STRING);
    required binary event (STRING);
    required binary ids (STRING);
    required binary props (STRING);
    required binary attrs (STRING);
    optional binary message_id (STRING);
    optional binary page_url (STRING);
    optional binary page_referrer (STRING);
    optional binary page_title (STRING);
    optional binary device_kind (STRING);
    optional binary device_os (STRING);
    optional binary device_browser (STRING);
    optional binary country (STRING);
    optional binary locale (STRING);
}";

/// The first column of text: those before it are of fixed width.
pub(super) const FIRST_TEXT: usize = 6;
/// How many texts every row has.
pub(super) const REQUIRED: usize = 6;
/// How many texts a row may have besides.
pub(super) const OPTIONAL: usize = 9;

/// Columns whose values hardly repeat, where a dictionary costs time and saves nothing.
const WITHOUT_DICTIONARY: [&str; 3] = ["ids", "props", "message_id"];
/// Columns of numbers that lie close to the one before.
const RISING: [&str; 3] = ["sequence", "time", "received"];

/// Columns of text whose least and greatest value of a row group are noted, besides those of numbers.
const BOUNDED: [&str; 2] = [EVENT, "site"];
/// The column of the event's name.
const EVENT: &str = "event";
/// The places of the columns that a scan passes row groups over by.
pub(super) const TIME_COLUMN: usize = 2;
pub(super) const EVENT_COLUMN: usize = FIRST_TEXT + 2;

/// The schema of a file.
pub(super) fn schema() -> TypePtr {
    Arc::new(parse_message_type(SCHEMA).expect("the schema is a constant"))
}

/// How files are written.
pub(super) fn properties() -> WriterProperties {
    let version = KeyValue::new(VERSION_KEY.to_owned(), VERSION.to_owned());
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("throng ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![version]))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("level 1 is a level")))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true);
    for name in WITHOUT_DICTIONARY {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(name), false);
    }
    for name in RISING {
        let column = || ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(column(), false)
            .set_column_encoding(column(), Encoding::DELTA_BINARY_PACKED)
            .set_column_statistics_enabled(column(), EnabledStatistics::Chunk);
    }
    for name in BOUNDED {
        properties = properties
            .set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::Chunk);
    }
    properties
        .set_column_bloom_filter_enabled(ColumnPath::from(EVENT), true)
        .set_column_bloom_filter_fpp(ColumnPath::from(EVENT), 0.01)
        .set_column_bloom_filter_max_ndv(ColumnPath::from(EVENT), 256)
        .set_bloom_filter_for_dictionary_encoded_chunks(true)
        .build()
}

/// Rows on their way into a file.
#[derive(Default)]
pub(super) struct Rows {
    count: usize,
    bytes: usize,
    sequence: Vec<i64>,
    part: Vec<i32>,
    time: Vec<i64>,
    received: Vec<i64>,
    time_replaced: Vec<bool>,
    bot: Vec<bool>,
    required: [Texts; REQUIRED],
    optional: [Texts; OPTIONAL],
    json: String,
}

/// The texts of one column, one behind the other.
#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
    /// Where each text ends.
    ends: Vec<usize>,
    /// Of an optional column: for each row 1 where there is a text.
    levels: Vec<i16>,
    values: Vec<ByteArray>,
}

impl Texts {
    fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.bytes.len());
    }

    fn push_optional(&mut self, text: Option<&str>) {
        self.levels.push(i16::from(text.is_some()));
        if let Some(text) = text {
            self.push(text);
        }
    }

    fn write<W: Write + Send>(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<()> {
        let room = self.bytes.len();
        let shared =
            bytes::Bytes::from(std::mem::replace(&mut self.bytes, Vec::with_capacity(room)));
        self.values.clear();
        let mut start = 0;
        for end in self.ends.drain(..) {
            self.values.push(ByteArray::from(shared.slice(start..end)));
            start = end;
        }
        let levels = (!self.levels.is_empty()).then_some(&self.levels[..]);
        write_column::<ByteArrayType, W>(group, &self.values, levels)?;
        self.values.clear();
        self.levels.clear();
        Ok(())
    }
}

impl Rows {
    /// A row group of so many rows, or of so many bytes, is enough.
    const MOST_ROWS: usize = 1 << 16;
    const MOST_BYTES: usize = 16 << 20;
    /// One of so many rows is large enough to be read by itself.
    const LARGE: usize = 1 << 13;

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= Self::MOST_ROWS || self.bytes >= Self::MOST_BYTES
    }

    /// Whether a row group may end here, so that the next begins with another name.
    pub(super) fn is_large(&self) -> bool {
        self.count >= Self::LARGE
    }

    pub(super) fn push(&mut self, no: EventNo, event: &Event) {
        self.count += 1;
        self.sequence.push(no.record.cast_signed());
        self.part.push(no.part.cast_signed());
        self.time.push(event.time);
        self.received.push(event.received);
        self.time_replaced.push(event.time_replaced);
        self.bot.push(event.bot);
        let [source, site, name, ids, props, attrs] = &mut self.required;
        source.push(event.source.as_str());
        site.push(&event.site);
        name.push(&event.name);
        let json = &mut self.json;
        let mut push_json = |texts: &mut Texts, write: &dyn Fn(&mut String)| {
            json.clear();
            write(json);
            self.bytes += json.len();
            texts.push(json);
        };
        push_json(ids, &|json| write_ids(&event.ids, json));
        push_json(props, &|json| write_json_object(&event.props, json));
        push_json(attrs, &|json| write_json_object(&event.attrs, json));
        let texts = [
            &event.message_id,
            &event.page.url,
            &event.page.referrer,
            &event.page.title,
            &event.device.kind,
            &event.device.os,
            &event.device.browser,
            &event.country,
            &event.locale,
        ];
        for (column, text) in self.optional.iter_mut().zip(texts) {
            self.bytes += text.as_ref().map_or(0, |text| text.len());
            column.push_optional(text.as_deref());
        }
    }

    /// Writes the rows as one row group and empties the buffers.
    pub(super) fn flush<W: Write + Send>(
        &mut self,
        writer: &mut SerializedFileWriter<W>,
    ) -> Result<()> {
        let mut group = writer.next_row_group()?;
        write_column::<Int64Type, W>(&mut group, &self.sequence, None)?;
        write_column::<Int32Type, W>(&mut group, &self.part, None)?;
        write_column::<Int64Type, W>(&mut group, &self.time, None)?;
        write_column::<Int64Type, W>(&mut group, &self.received, None)?;
        write_column::<BoolType, W>(&mut group, &self.time_replaced, None)?;
        write_column::<BoolType, W>(&mut group, &self.bot, None)?;
        for texts in self.required.iter_mut().chain(&mut self.optional) {
            texts.write(&mut group)?;
        }
        group.close()?;
        self.clear();
        Ok(())
    }

    /// Empties the buffers.
    pub(super) fn clear(&mut self) {
        (self.count, self.bytes) = (0, 0);
        self.sequence.clear();
        self.part.clear();
        self.time.clear();
        self.received.clear();
        self.time_replaced.clear();
        self.bot.clear();
        for texts in self.required.iter_mut().chain(&mut self.optional) {
            texts.bytes.clear();
            texts.ends.clear();
            texts.levels.clear();
        }
    }
}

fn write_column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<()> {
    let mut column = group.next_column()?.expect("the schema has a column for each buffer");
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

fn write_ids(ids: &[Identifier], out: &mut String) {
    out.push('[');
    for (i, id) in ids.iter().enumerate() {
        out.push_str(if i > 0 { ",[" } else { "[" });
        write_json_string(id.namespace.as_str(), out);
        out.push(',');
        write_json_string(id.value(), out);
        out.push(']');
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_a_column_for_each_buffer() {
        let schema = schema();
        let fields = schema.get_fields();
        assert_eq!(fields.len(), FIRST_TEXT + REQUIRED + OPTIONAL);
        for (i, field) in fields.iter().enumerate() {
            assert_eq!(field.is_optional(), i >= FIRST_TEXT + REQUIRED, "{}", field.name());
        }
        assert_eq!(fields[TIME_COLUMN].name(), "time");
        assert_eq!(fields[EVENT_COLUMN].name(), EVENT);
        for name in WITHOUT_DICTIONARY.iter().chain(&RISING).chain(&BOUNDED) {
            assert!(fields.iter().any(|field| field.name() == *name), "{name}");
        }
    }
}
