"""The commands of ``sap-art``, by what they are about; ``cli`` gathers them. Help comes without torch."""
