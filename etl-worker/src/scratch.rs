//! Tables that are kept in the scratch folder because several readers want them: Parquet, lightly compressed.

use std::path::Path;

use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::error::{Code, Result, RunError};
use crate::observe::RowStream;
use crate::row_groups::ParquetFile;

/// A row group is written when it holds this much, so that memory stays bounded however wide the rows are.
const ROW_GROUP_BYTES_MAX: usize = 16 << 20;

/// Writes rows to a file and counts them.
pub(crate) async fn write(path: &Path, schema: SchemaRef, mut rows: RowStream, field: &str) -> Result<u64> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        RunError::at(Code::DiskExceeded, "spec.worker.scratch", format!("can't keep the rows of {field} in scratch"))
            .caused_by(error)
    };
    let file = tokio::fs::File::create(path).await.map_err(|error| failed(error.into()))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    let file = ParquetFile::new(file, schema, properties, ROW_GROUP_BYTES_MAX);
    let mut file = file.map_err(|error| failed(error.into()))?;
    let mut count = 0;
    while let Some(batch) = rows.try_next().await? {
        count += batch.num_rows() as u64;
        file.write(&batch).await.map_err(|error| failed(error.into()))?;
    }
    file.finish().await.map_err(|error| failed(error.into()))?;
    Ok(count)
}
